//! The commands against an API that says what a real one rarely does.

use serde_json::{Value, json};

use super::*;
use crate::docker::tests::fake::Fake;
use crate::labels::{IP_HASH, SESSION_COOKIE};

fn service(labels: &Value) -> Value {
    json!({"ID": "s0", "Version": {"Index": 41}, "Spec": {"Name": "demo", "Labels": labels, "Mode": {"Replicated": {"Replicas": 2}},
        "TaskTemplate": {"ContainerSpec": {"Image": "demo"}}}})
}

fn task(desired: &str, state: &str, error: &str) -> Value {
    json!({"ID": "t", "ServiceID": "s0", "CreatedAt": "2026-11-22T10:00:00Z", "DesiredState": desired,
        "Status": {"State": state, "Err": error}})
}

async fn swarm(labels: &Value) -> (Fake, Swarm) {
    let fake = Fake::start();
    let service = service(labels);
    fake.set("/services", json!([service]));
    fake.set("/services/demo", service);
    fake.set("/services/s0", json!({}));
    fake.set("/services/s0/update", json!({}));
    fake.set("/services/create", json!({"ID": "s0", "Warning": "not pinned"}));
    let swarm = Swarm::connect(Some(&fake.url())).await.unwrap();
    (fake, swarm)
}

fn cookies(value: Option<&str>) -> Change {
    Change { labels: vec![(SESSION_COOKIE, value.map(ToOwned::to_owned))], replicas: None }
}

fn new() -> New {
    New {
        name: "demo".to_owned(),
        image: "demo".to_owned(),
        network: Some("net".to_owned()),
        replicas: 2,
        labels: [("com.docker.lb.hosts".to_owned(), "demo.local".to_owned())].into(),
    }
}

#[tokio::test]
async fn a_change_that_others_come_before_is_made_again() {
    const UPDATE: &str = "POST /services/s0/update";
    let (fake, swarm) = swarm(&json!({"com.docker.lb.hosts": "demo.local", "other": "x"})).await;
    fake.refuse(UPDATE, 500, "rpc error: code = Unknown desc = update out of sequence", 3);
    let change = cookies(Some("COOKIE_1,COOKIE_2"));
    let changed = swarm.update("demo", &change, &mut Progress::new()).await.unwrap();
    assert_eq!(changed.labels, [(SESSION_COOKIE.to_owned(), Some("COOKIE_1,COOKIE_2".to_owned()))]);
    let orders = fake.orders();
    assert_eq!(orders.len(), 4);
    let (order, body) = orders.last().unwrap();
    assert_eq!(order, &format!("{UPDATE}?version=41"));
    let body: Value = serde_json::from_str(body).unwrap();
    let mut expected = service(&json!({
        "com.docker.lb.hosts": "demo.local", "other": "x", SESSION_COOKIE: "COOKIE_1,COOKIE_2"
    }));
    assert_eq!(body, expected["Spec"].take());

    fake.refuse(UPDATE, 409, "update out of sequence", usize::MAX);
    let error = swarm.update("demo", &change, &mut Progress::new()).await.unwrap_err();
    assert!(matches!(error, Error::Contested(_)), "{error}");
}

#[tokio::test]
async fn nothing_is_sent_for_what_is_so_or_would_not_be_understood() {
    let (fake, swarm) = swarm(&json!({"com.docker.lb.hosts": "demo.local"})).await;
    let changed = swarm.update("demo", &cookies(None), &mut Progress::new()).await.unwrap();
    assert!(changed.labels.is_empty() && changed.replicas.is_none());
    let wrong = cookies(Some("no spaces allowed"));
    let error = swarm.update("demo", &wrong, &mut Progress::new()).await.unwrap_err();
    assert!(matches!(error, Error::Label { .. }), "{error}");
    assert!(fake.orders().is_empty());
}

#[tokio::test]
async fn mistakes_are_told_with_what_to_do() {
    let (fake, swarm) = swarm(&json!({"other": "x"})).await;
    let progress = &mut Progress::new();
    let unknown = swarm.update("no/such", &cookies(None), progress).await.unwrap_err().to_string();
    assert!(unknown.contains("no service no/such"), "{unknown}");
    let others = swarm.remove("demo").await.unwrap_err().to_string();
    assert!(others.contains("docker service rm demo"), "{others}");
    for (status, message, said) in [
        (409, "name conflicts with an existing object", "a service demo already"),
        (503, "This node is not a swarm manager.", "no Swarm manager"),
        (404, "network net not found", "network net not found"),
        (403, "only networks scoped to the swarm can be used", "scoped to the swarm"),
    ] {
        fake.refuse("POST /services/create", status, message, 1);
        let error = swarm.create(&new(), progress).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let nowhere =
        Swarm::connect(Some("unix:///nowhere/docker.sock")).await.unwrap_err().to_string();
    assert!(nowhere.contains("/nowhere/docker.sock cannot be reached"), "{nowhere}");
    fake.set(
        "/tasks",
        json!([
            task("shutdown", "rejected", "No such image: demo"),
            task("running", "preparing", "")
        ]),
    );
    let image = swarm.create(&new(), progress).await.unwrap_err().to_string();
    assert!(image.contains("0 of 2 tasks running: No such image: demo"), "{image}");
}

#[tokio::test]
async fn a_new_service_has_its_labels_and_its_tasks_are_waited_for() {
    let (fake, swarm) = swarm(&json!({})).await;
    let running = task("running", "running", "");
    fake.set(
        "/tasks",
        json!([running, running, task("shutdown", "failed", "task: non-zero exit (1)")]),
    );
    swarm.create(&new(), &mut Progress::new()).await.unwrap();
    let (order, body) = fake.orders().remove(0);
    assert_eq!(order, "POST /services/create?");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["Labels"], json!({"com.docker.lb.hosts": "demo.local"}));
    assert_eq!(body["TaskTemplate"]["Networks"], json!([{"Target": "net"}]));
    assert_eq!(body["Mode"]["Replicated"]["Replicas"], 2);
}

#[tokio::test]
async fn the_list_has_aligned_columns() {
    let (fake, swarm) = swarm(
        &json!({"com.docker.lb.hosts": "a.example.com,b.example.com", SESSION_COOKIE: "A,B"}),
    )
    .await;
    let mut other = service(&json!({"com.docker.lb.hosts": "c.example.com", IP_HASH: "true"}));
    other["Spec"]["Name"] = "a-longer-name".into();
    other["Spec"]["Mode"] = json!({"Global": {}});
    let mut none = service(&json!({"sticky": "no"}));
    none["Spec"]["Name"] = "none".into();
    fake.set("/services", json!([service(&json!({"com.docker.lb.hosts": "a.example.com,b.example.com", SESSION_COOKIE: "A,B"})), other, none]));
    fake.set("/tasks", json!([task("running", "running", ""), task("running", "preparing", "")]));
    let text = table(&swarm.list().await.unwrap());
    assert_eq!(
        text,
        "NAME           HOSTS                        AFFINITY  COOKIES  REPLICAS\n\
         a-longer-name  c.example.com                ip-hash   -        1/2\n\
         demo           a.example.com,b.example.com  cookie    A,B      1/2\n"
    );
}
