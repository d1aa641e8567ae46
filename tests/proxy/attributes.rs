//! Which attributes of the application's cookie ours has: set, changed, deleted.

use sticky::model::{CookieMode, ServiceConfig};

use crate::backend::Backend;
use crate::client::{Connection, Response, get};
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

/// One value of each attribute.
const ATTRIBUTES: [&str; 8] = [
    "Domain=demo.local",
    FUTURE,
    "HttpOnly",
    "Max-Age=86400",
    "Partitioned",
    "Path=/app",
    "SameSite=Strict",
    "Secure",
];

/// Those of the attributes whose bits are set, sorted.
fn subset(bits: usize) -> Vec<&'static str> {
    ATTRIBUTES
        .into_iter()
        .enumerate()
        .filter(|(at, _)| bits >> at & 1 == 1)
        .map(|(_, a)| a)
        .collect()
}

fn line(value: &str, attributes: &[&str]) -> String {
    [&[&*format!("session={value}")], attributes].concat().join("; ")
}

/// Sends a `Set-Cookie` through the proxy, with these cookies in the request.
fn ask(connection: &mut Connection, set: &str, cookies: &str) -> Response {
    let headers = [("x-set", set), ("Cookie", cookies)];
    let response = connection.request("GET /set", &headers, b"").unwrap();
    assert_eq!(
        (response.status, response.cookie("session")),
        (200, Some(set)),
        "the app's own stays"
    );
    response
}

/// All 256 sets of attributes: each alone, each with any others.
#[test]
fn learned_cookies_have_the_attributes_of_the_apps() {
    let backends = ["a", "b"].map(Backend::start);
    let [a, b] = &backends;
    let bench = Bench::new(vec![service("s", &[a], learn)]);
    let mut connection = Connection::open(bench.addr);
    let mut pins = Vec::new();
    for bits in 0..256 {
        let (given, rest) = (subset(bits), subset(!bits & 255));
        let first = ask(&mut connection, &line("1", &given), "x=y");
        assert_eq!(ours(&first).unwrap(), given, "set");
        let value = first.value("sticky_lb").unwrap();
        assert!(value.len() < 200, "{} characters", value.len());
        let cookies = format!("session=1; sticky_lb={value}");

        assert_eq!(ours(&ask(&mut connection, "session=1", &cookies)), None, "bare");
        let other = ours(&ask(&mut connection, &line("2", &rest), &cookies));
        assert_eq!(
            other,
            (!rest.is_empty()).then(|| rest.iter().map(ToString::to_string).collect()),
            "changed"
        );

        let timeless: Vec<_> =
            given.iter().copied().filter(|a| !a.contains("Max") && !a.contains("Exp")).collect();
        for end in ["Max-Age=0", PAST] {
            let deleted =
                ask(&mut connection, &line("", &[&timeless[..], &[end]].concat()), &cookies);
            assert_eq!(deleted.value("sticky_lb").as_deref(), Some(""));
            let mut want = [&timeless[..], &[PAST, "Max-Age=0"]].concat();
            want.sort_unstable();
            assert_eq!(ours(&deleted).unwrap(), want, "deleted");
        }
        pins.push((given, cookies));
    }
    // Their backend goes: each client gets what it had, and the rest of its time.
    bench.publish(vec![service("s", &[b], learn)]);
    for (given, cookies) in pins {
        let mut moved = ours(&ask(&mut connection, "session=1", &cookies)).unwrap();
        for attribute in &mut moved {
            if let Some(left) = attribute.strip_prefix("Max-Age=") {
                assert!((86_300..=86_400).contains(&left.parse().unwrap()), "{attribute}");
                *attribute = "Max-Age=86400".to_owned();
            }
        }
        assert_eq!(moved, given, "moved");
    }
}

#[test]
fn inserted_cookies_have_their_own_and_hashed_ones_none() {
    let backends = ["a", "b"].map(Backend::start);
    let [a, b] = &backends;
    let edit = |mode| move |c: &mut ServiceConfig| c.cookie = cookie(mode, &["session"]);
    let bench = Bench::new(vec![service("s", &[a], edit(CookieMode::Insert))]);
    let mut connection = Connection::open(bench.addr);
    let fixed = ["HttpOnly", "Path=/", "SameSite=Lax"];
    let mut pin = String::new();
    for bits in 0..256 {
        let given = subset(bits);
        let first = ask(&mut connection, &line("1", &given), "x=y");
        assert_eq!(ours(&first).unwrap(), fixed);
        pin = format!("session=1; sticky_lb={}", first.value("sticky_lb").unwrap());
        for next in [line("2", &given), line("", &[&given[..], &["Max-Age=0"]].concat())] {
            assert_eq!(
                ours(&ask(&mut connection, &next, &pin)),
                None,
                "changed or deleted: {next}"
            );
        }
    }
    bench.publish(vec![service("s", &[b], edit(CookieMode::Insert))]);
    assert_eq!(ours(&ask(&mut connection, "session=1", &pin)).unwrap(), fixed, "moved");
    bench.publish(vec![service("s", &[a, b], edit(CookieMode::Hash))]);
    for bits in 0..256 {
        let given = subset(bits);
        for (set, cookies) in [("1", "x=y"), ("2", "session=1"), ("", "session=1")] {
            let given =
                if set.is_empty() { [&given[..], &["Max-Age=0"]].concat() } else { given.clone() };
            assert_eq!(ours(&ask(&mut connection, &line(set, &given), cookies)), None);
        }
    }
}

#[test]
fn spellings_that_browsers_take() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    for (given, want) in [
        (
            "PATH=/; SECURE; httponly; samesite=NONE",
            &["HttpOnly", "Path=/", "SameSite=None", "Secure"][..],
        ),
        ("Path = / ;Max-Age= 60", &["Max-Age=60", "Path=/"]),
        ("SameSite=Lax", &["SameSite=Lax"]),
        ("SameSite=None", &["SameSite=None"]),
        ("SameSite=whatever; Priority=High", &[]),
        ("Path=/a; Path=/b", &["Path=/b"]),
        ("Expires=Fri, 01-Jan-2100 00:00:00 GMT", &[FUTURE]),
        ("Expires=Fri Jan  1 00:00:00 2100", &[FUTURE]),
        ("Expires=Fri, 1 Jan 2100 0:00:00 UTC", &[FUTURE]),
        ("Expires=01 Jan 2100 00:00:00 +0000", &[FUTURE]),
        ("Expires=soon; Max-Age=later", &[]),
        ("Max-Age=; Expires=", &[]),
        ("Max-Age=-", &[]),
    ] {
        let response = set(&bench, &[&format!("session=1; {given}")], "x=y");
        assert_eq!(ours(&response).unwrap(), want, "{given}");
    }
    let value = set(&bench, &["session=\u{fc}\u{4e16}; Path=/"], "x=y");
    assert_eq!(ours(&value).unwrap(), ["Path=/"], "a value need not be ASCII");
}

#[test]
fn both_times_are_kept_as_the_app_gave_them() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let both = set(&bench, &[&format!("session=1; Max-Age=60; {FUTURE}")], "x=y");
    assert_eq!(ours(&both).unwrap(), [FUTURE, "Max-Age=60"]);
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
        format!("session=; Path=/; Max-Age=; {PAST}"),
        "session=; Path=/; Expires=Thu, 1 Jan 1970 00:00:00 GMT".to_owned(),
        "session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 UTC".to_owned(),
        "session=; Path=/; Expires=Thu, 01-Jan-1970 00:00:00 +0000".to_owned(),
        "session=; Path=/; Expires=1 Jan 70 0:0:0".to_owned(),
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
