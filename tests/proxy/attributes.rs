//! Which attributes of the application's cookie ours has: set, changed, deleted.

use sticky::model::CookieMode;

use crate::backend::Backend;
use crate::client::{Response, get};
use crate::proxy::{Bench, cookie, learn, service};

fn bench(backend: &Backend) -> Bench {
    Bench::new(vec![service("s", &[backend], learn)])
}

/// Attributes of our cookie in a response, sorted.
fn ours(response: &Response) -> Option<Vec<String>> {
    let mut all: Vec<_> =
        response.cookie("sticky_lb")?.split(';').skip(1).map(|a| a.trim().to_owned()).collect();
    all.sort();
    Some(all)
}

fn set(bench: &Bench, lines: &[&str], cookies: &str) -> Response {
    let mut headers: Vec<_> = lines.iter().map(|line| ("x-set", *line)).collect();
    headers.push(("Cookie", cookies));
    let response = get(bench.addr, "/set", &headers);
    assert_eq!(response.status, 200);
    response
}

const FUTURE: &str = "Expires=Fri, 01 Jan 2100 00:00:00 GMT";
const PAST: &str = "Expires=Thu, 01 Jan 1970 00:00:00 GMT";

#[test]
fn each_attribute_alone_and_all_together() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &[]),
        (&["Path=/"], &["Path=/"]),
        (&["Path=/app"], &["Path=/app"]),
        (&["Domain=demo.local"], &["Domain=demo.local"]),
        (&[FUTURE], &[FUTURE]),
        (&["Max-Age=3600"], &["Max-Age=3600"]),
        (&["Secure"], &["Secure"]),
        (&["HttpOnly"], &["HttpOnly"]),
        (&["SameSite=Strict"], &["SameSite=Strict"]),
        (&["SameSite=Lax"], &["SameSite=Lax"]),
        (&["SameSite=None"], &["SameSite=None"]),
        (&["Partitioned"], &["Partitioned"]),
        (
            &["path=/", "secure", "httponly", "samesite=none"],
            &["HttpOnly", "Path=/", "SameSite=None", "Secure"],
        ),
        (
            &[
                "Path=/",
                "Domain=demo.local",
                "Max-Age=86400",
                "Secure",
                "HttpOnly",
                "SameSite=None",
                "Partitioned",
            ],
            &[
                "Domain=demo.local",
                "HttpOnly",
                "Max-Age=86400",
                "Partitioned",
                "Path=/",
                "SameSite=None",
                "Secure",
            ],
        ),
    ];
    for (given, want) in cases {
        let line = [&["session=1"], *given].concat().join("; ");
        let response = set(&bench, &[&line], "x=y");
        assert_eq!(
            response.cookie("session"),
            Some(line.as_str()),
            "the app's own is left as it is"
        );
        assert_eq!(ours(&response).unwrap(), *want, "{line}");
        assert!(response.value("sticky_lb").unwrap().len() < 200);
    }
    let both = set(&bench, &[&format!("session=1; Max-Age=60; {FUTURE}")], "x=y");
    let both = ours(&both).unwrap();
    assert!(both.contains(&"Max-Age=60".to_owned()) && both[0].starts_with("Expires="), "{both:?}");
}

#[test]
fn changed_and_deleted() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let first = set(&bench, &["session=1; Path=/; HttpOnly; Max-Age=60"], "x=y");
    let cookies = format!("session=1; sticky_lb={}", first.value("sticky_lb").unwrap());
    assert_eq!(ours(&set(&bench, &["session=1"], &cookies)), None, "bare");
    assert_eq!(ours(&set(&bench, &["session=1;"], &cookies)), None, "bare");
    assert_eq!(
        ours(&set(&bench, &["session=2; Path=/; Max-Age=90"], &cookies)).unwrap(),
        ["Max-Age=90", "Path=/"]
    );
    let deletions = [
        "session=; Path=/; Max-Age=0".to_owned(),
        "session=; Path=/; Max-Age=-1".to_owned(),
        format!("session=; Path=/; {PAST}"),
        format!("session=x; Path=/; Max-Age=0; {FUTURE}"),
    ];
    for line in deletions {
        let response = set(&bench, &[&line], &cookies);
        assert_eq!(response.value("sticky_lb").as_deref(), Some(""), "{line}");
        assert_eq!(ours(&response).unwrap(), [PAST, "Max-Age=0", "Path=/"], "{line}");
    }
    let kept = set(&bench, &[&format!("session=x; Path=/; Max-Age=60; {PAST}")], &cookies);
    assert!(!kept.value("sticky_lb").unwrap().is_empty(), "Max-Age has precedence");
}

#[test]
fn several_lines_and_several_names() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |c| {
        c.cookie = cookie(CookieMode::Learn, &["COOKIE_1", "COOKIE_2"]);
    })]);
    for name in ["COOKIE_1", "COOKIE_2"] {
        let line = format!("{name}=1; Path=/");
        assert_eq!(ours(&set(&bench, &[&line], "x=y")).unwrap(), ["Path=/"]);
    }
    assert_eq!(ours(&set(&bench, &["cookie_1=1; Path=/"], "x=y")), None, "names have case");
    // Two places, two cookies of ours; the same place, one.
    let two = set(&bench, &["COOKIE_1=1; Path=/a", "other=1", "COOKIE_2=1; Path=/b"], "x=y");
    assert_eq!(two.all("set-cookie").filter(|l| l.starts_with("sticky_lb=")).count(), 2);
    let one = set(&bench, &["COOKIE_1=1; Path=/", "COOKIE_2=1; Path=/; HttpOnly"], "x=y");
    let ours_only: Vec<_> = one.all("set-cookie").filter(|l| l.starts_with("sticky_lb=")).collect();
    assert_eq!(
        (ours_only.len(), ours(&one).unwrap()),
        (1, vec!["HttpOnly".to_owned(), "Path=/".to_owned()])
    );
    // A login that clears the old place and sets the new one.
    let moved = set(&bench, &["COOKIE_1=; Path=/; Max-Age=0", "COOKIE_1=2; Path=/"], "x=y");
    assert_eq!(ours(&moved).unwrap(), ["Path=/"]);
    // One of two is deleted: the other still needs its backend. Both: ours goes too.
    let pin = one.value("sticky_lb").unwrap();
    let cookies = format!("COOKIE_1=1; COOKIE_2=1; sticky_lb={pin}");
    assert_eq!(ours(&set(&bench, &["COOKIE_1=; Path=/; Max-Age=0"], &cookies)), None);
    let gone =
        set(&bench, &["COOKIE_1=; Path=/; Max-Age=0", "COOKIE_2=; Path=/; Max-Age=0"], &cookies);
    assert_eq!(gone.value("sticky_lb").as_deref(), Some(""));
}

#[test]
fn an_app_that_uses_our_name_keeps_it() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let response = set(&bench, &["session=1; Path=/", "sticky_lb=mine; Path=/"], "x=y");
    let all: Vec<_> = response.all("set-cookie").collect();
    assert_eq!(all, ["session=1; Path=/", "sticky_lb=mine; Path=/"]);
}
