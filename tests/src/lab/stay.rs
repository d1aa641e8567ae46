//! The lab stays up for the user to try.

use std::io::{IsTerminal, stdin};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::engine::SERVICE;
use super::{Lab, Options};
use crate::command::line;
use crate::demo::HTTP_PORT;
use crate::topology::{NODE, client};
use crate::wait;

/// Says how to try, and prints sticky's map updates until Enter or Ctrl-C.
pub(super) fn stay(lab: &mut Lab, options: &Options) -> anyhow::Result<()> {
    lab.report.title("The lab stays up: try it from another terminal");
    let at = |netns: &crate::netns::Netns, command: String| {
        format!("nsenter --net={} {command}", netns.path().display())
    };
    let clients = &lab.net.clients;
    let mut hints = lab.engine.hints();
    hints.extend([
        (
            at(clients, format!("curl -H 'Host: demo.local' http://{NODE}/ping")),
            "through the proxy".to_owned(),
        ),
        (
            at(clients, format!("curl --interface {} http://{NODE}:{HTTP_PORT}/ping", client(7))),
            "at layer 4, from one of 131072 clients (198.18.0.0/15)".to_owned(),
        ),
        (line(&lab.sticky.command(&["status", "--watch"])), "the balancer's view".to_owned()),
        (
            line(&lab.sticky.command(&["where", &client(7).to_string(), "--service", SERVICE])),
            "where a client goes, and why".to_owned(),
        ),
        (at(&lab.net.node, "curl http://127.0.0.1:9880/metrics".to_owned()), "metrics".to_owned()),
        (
            at(&lab.net.node, "bash".to_owned()),
            format!("a shell on the node; sticky is {}", options.sticky.display()),
        ),
    ]);
    for (command, what) in hints {
        lab.report.note(&what);
        lab.report.command(&command);
    }
    let enter = stdin().is_terminal();
    println!(
        "\n{} ends the lab and removes it.",
        if enter { "Enter or Ctrl-C" } else { "Ctrl-C or SIGTERM" }
    );

    let (done, ended) = channel();
    if enter {
        std::thread::spawn(move || {
            let _ = stdin().read_line(&mut String::new());
            // The lab may have ended by Ctrl-C already.
            let _ = done.send(());
        });
    } else {
        // Never sent to: only a signal ends the wait. Kept alive, or it would end at once.
        std::mem::forget(done);
    }
    let mut printed = lab.sticky.log().len();
    while !wait::interrupted() {
        if !matches!(ended.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout))
        {
            break;
        }
        lab.sticky.process()?.check()?;
        let log = lab.sticky.log();
        for line in
            log.iter().skip(printed).filter(|line| line.text.contains(" backends, generation "))
        {
            lab.report.output(&line.text);
        }
        printed = log.len();
    }
    Ok(())
}
