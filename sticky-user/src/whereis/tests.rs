use super::*;
use crate::model::DrainMode;
use crate::status::tests::{backend, in_force};

struct Fixed(Option<(&'static str, Outcome)>);

impl ClientTable for Fixed {
    fn choose(&self, _: &str, _: IpAddr) -> Option<Choice> {
        unreachable!("a question changes nothing")
    }

    fn look(&self, _: &str, _: IpAddr) -> Option<Choice> {
        self.0.map(|(backend, reason)| Choice { backend: backend.into(), reason })
    }

    fn home(&self, _: &str, _: IpAddr) -> Option<String> {
        None
    }

    fn hashed(&self, _: &str, _: &[u8]) -> Option<Choice> {
        None
    }

    fn knows(&self, _: &str) -> bool {
        true
    }
}

fn question(service: Option<&str>) -> Question {
    Question {
        client: "198.51.100.7".parse().unwrap(),
        service: service.map(Into::into),
        cookie: None,
    }
}

fn ask(in_force: &InForce, service: Option<&str>, table: Fixed) -> Answer {
    answer(&question(service), in_force, &table, false, &|_, _| None).unwrap().remove(0)
}

#[test]
fn the_answer_is_that_of_the_tables() {
    let answer = ask(&in_force(), Some("demo"), Fixed(Some(("kpf4", Outcome::Pinned))));
    let json = serde_json::to_value(&answer).unwrap();
    let expected = serde_json::json!({
        "service": "demo",
        "backend": { "id": "kpf4", "name": "demo.1", "addr": "172.18.0.3:8080" },
        "reason": "pinned",
        "path": "xdp",
    });
    assert_eq!(json, expected);
    assert_eq!(
        answer.line("198.51.100.7".parse().unwrap()),
        "demo: 198.51.100.7 -> demo.1 (172.18.0.3:8080, id kpf4), by xdp: pinned, the record of this client says so"
    );
}

#[test]
fn a_service_is_found_by_id_too_and_all_are_answered_without_one() {
    ask(&in_force(), Some("s1"), Fixed(None));
    ask(&in_force(), None, Fixed(None));
    let unknown =
        answer(&question(Some("x")), &in_force(), &Fixed(None), false, &|_, _| None).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no service x; known are: demo");
}

#[test]
fn no_backend_is_an_answer() {
    let answer = ask(&in_force(), None, Fixed(None));
    assert_eq!((answer.backend, answer.reason.as_str()), (None, "no_backend"));
}

#[test]
fn a_client_may_be_kept_where_others_may_not_go() {
    let mut in_force = in_force();
    let mut snapshot = (*in_force.snapshot).clone();
    let draining = backend("old", "demo.0", State::Draining(DrainMode::Sessions));
    Arc::make_mut(&mut snapshot.services[0]).backends.push(draining);
    in_force.snapshot = snapshot.into();
    let answer = ask(&in_force, None, Fixed(Some(("old", Outcome::Pinned))));
    assert_eq!(answer.reason, "draining");
}

#[test]
fn without_client_affinity_the_load_decides() {
    let mut in_force = in_force();
    let mut snapshot = (*in_force.snapshot).clone();
    Arc::make_mut(&mut snapshot.services[0]).config.ip_hash = false;
    in_force.snapshot = snapshot.into();
    let answer = ask(&in_force, None, Fixed(None));
    assert_eq!((answer.backend, answer.reason.as_str()), (None, "new"));
}

#[test]
fn a_cookie_holds_where_nobody_new_may_go() {
    let mut in_force = in_force();
    let mut snapshot = (*in_force.snapshot).clone();
    Arc::make_mut(&mut snapshot.services[0]).config.ip_hash = false;
    Arc::make_mut(&mut snapshot.services[0]).backends[0].state =
        State::Draining(DrainMode::Sessions);
    in_force.snapshot = snapshot.into();
    let mut question = question(Some("demo"));
    question.cookie = Some("sealed".into());
    let pinned = CookieView { reason: Reason::Pinned, backend: Some("kpf4".into()) };
    let invalid = CookieView { reason: Reason::Invalid, backend: None };
    for (view, reason) in [(pinned, "draining"), (invalid, "no_backend")] {
        let view = |_: &str, _: &str| Some(view.clone());
        let answers = answer(&question, &in_force, &Fixed(None), false, &view).unwrap();
        assert_eq!(answers[0].reason, reason);
        assert_eq!(answers[0].backend.is_some(), reason == "draining");
    }
}
