//! Flags, variables and files: which wins, and what is said of mistakes.

use std::fs;

use crate::node::{LIMIT, Place, backend, stderr, stdout};

#[test]
fn mistakes_of_a_configuration_have_their_places() -> anyhow::Result<()> {
    let place = Place::new()?;
    let file = place.dir.join("sticky.toml");
    fs::write(&file, "htpp = \":80\"\n\nadmin = 5\nhttps = \":443\"\n")?;
    let name = file.display().to_string();
    let output = place.sticky(&["check-config", &name])?;
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains(&format!("{name}:1:1: unknown key `htpp`; did you mean `http`?")),
        "{said}"
    );
    assert!(said.contains(&format!("{name}:3:9: admin: ")), "{said}");

    fs::write(&file, "\nhttps = \":443\"\n")?;
    let said = stderr(&place.sticky(&["check-config", &name])?);
    assert!(said.contains(&format!("{name}:2:1: https: TLS is not served")), "{said}");

    fs::write(&file, "http = \":8080\"\n")?;
    let output = place.sticky(&["check-config", &name])?;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("{name}: no mistakes\n"));
    Ok(())
}

#[test]
fn mistakes_of_a_file_of_services_have_their_places() -> anyhow::Result<()> {
    let place = Place::new()?;
    let file = place.dir.join("s.toml");
    let labels =
        "[service.labels]\n\"com.docker.lb.prt\" = \"8080\"\n\"com.docker.lb.port\" = \"no\"\n";
    fs::write(&file, format!("[[service]]\nname = \"a\"\nbackends = [\"127.0.0.1:1\"]\n{labels}"))?;
    let name = file.display().to_string();
    let output = place.sticky(&["check-config", &name])?;
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    for line in [5, 6] {
        assert!(said.contains(&format!("{name}:{line}:")), "{said}");
    }
    assert!(said.contains("com.docker.lb.port"), "{said}");
    Ok(())
}

#[test]
fn wrong_usage_is_code_2_and_says_what_would_be_right() -> anyhow::Result<()> {
    let place = Place::new()?;
    let code = |args: &[&str]| -> anyhow::Result<_> {
        let output = place.sticky(args)?;
        Ok((output.status.code(), stderr(&output)))
    };
    let (status, said) = code(&["run", "--http", "nowhere"])?;
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("[::]:80"), "{said}");
    let (status, said) = code(&["run", "--https", "[::]:443"])?;
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("--https: TLS is not served"), "{said}");
    assert_eq!(code(&["run", "--iface", "none", "--iface", "lo"])?.0, Some(2));
    assert_eq!(code(&["walk"])?.0, Some(2));
    assert_eq!(code(&["where", "nobody"])?.0, Some(2));
    Ok(())
}

#[test]
fn a_flag_comes_before_its_variable_and_that_before_the_file() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let file = place.dir.join("sticky.toml");
    fs::write(
        &file,
        "admin = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:1\"\nlog-format = \"json\"\niface = \"none\"\n",
    )?;
    let provider = format!("file:{}", place.dir.join("services.toml").display());
    let mut command = place.command(&["run", "--http", "127.0.0.1:0"])?;
    command.env("STICKY_CONFIG", &file).env("STICKY_PROVIDER", provider);
    command.env("STICKY_ADMIN", "none").env("STICKY_HTTP", "127.0.0.1:2");
    let mut sticky = sticky_tests::process::Process::spawn("sticky", &command)?;
    let line = sticky.wait_line(LIMIT, 0, |line| line.contains("\"listening\""))?.text;
    let said: serde_json::Value = serde_json::from_str(&line)?;
    assert_eq!(said["admin"], "none");
    assert!(!["127.0.0.1:1", "127.0.0.1:2"].contains(&said["http"].as_str().unwrap_or_default()));
    Ok(())
}

#[test]
fn keys_are_made_rotated_and_listed_and_never_shown_again() -> anyhow::Result<()> {
    let place = Place::new()?;
    let made = stdout(&place.sticky(&["keys", "generate"])?);
    let file = place.dir.join("keys");
    fs::write(&file, &made)?;
    let name = file.display().to_string();
    let before = stdout(&place.sticky(&["keys", "list", &name])?);
    assert_eq!(before.lines().count(), 2, "{before}");
    assert!(place.sticky(&["keys", "rotate", &name])?.status.success());
    let after = stdout(&place.sticky(&["keys", "list", &name])?);
    assert_eq!(after.lines().count(), 3, "{after}");
    for secret in made.lines().filter_map(|line| line.split_once(' ')).map(|(_, hex)| hex) {
        assert!(!after.contains(secret), "a key is shown");
    }
    Ok(())
}

#[test]
fn the_manual_and_the_completions_name_every_command() -> anyhow::Result<()> {
    let place = Place::new()?;
    for args in [&["man"][..], &["completions", "bash"], &["--help"]] {
        let text = stdout(&place.sticky(args)?).replace('\\', "");
        for command in ["run", "status", "where", "keys", "check-config", "detach"] {
            assert!(text.contains(command), "{args:?} does not name {command}");
        }
    }
    Ok(())
}
