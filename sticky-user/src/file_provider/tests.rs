use std::path::Path;

use super::*;
use crate::model::{DrainMode, Proto, Publish, State};
use crate::provider::waiting::{backends, until};

const DEMO: &str = r#"
[[service]]
name = "demo"
publish = ["8080:80/tcp"]
backends = ["192.0.2.11:8080", { addr = "192.0.2.12:8080", id = "b", weight = 2, drain = true }]
[service.labels]
"com.docker.lb.hosts" = "demo.local"
"com.docker.lb.ip_hash" = "true"
"#;

fn read(text: &str, good: &mut HashMap<String, Service>) -> Vec<Arc<Service>> {
    document::read(text, &Instance::default(), good).expect("the file can be understood")
}

fn places(text: &str) -> Vec<(usize, usize, String)> {
    check(text, &Instance::default())
        .into_iter()
        .map(|m| (m.line, m.column, m.error.label))
        .collect()
}

#[test]
fn the_contracts_example_is_read() {
    let services = read(DEMO, &mut HashMap::new());
    let [demo] = services.as_slice() else { panic!("{services:?}") };
    assert!(demo.errors.is_empty() && demo.config.ip_hash, "{demo:?}");
    assert_eq!(demo.publish, [Publish { port: 8080, target: 80, proto: Proto::Tcp }]);
    let [a, b] = demo.backends.as_slice() else { panic!("{demo:?}") };
    assert_eq!(
        (a.id.as_str(), a.name.as_str(), a.weight, a.state),
        ("192.0.2.11:8080", "demo.1", 1, State::Up)
    );
    assert_eq!((b.id.as_str(), b.name.as_str(), b.weight), ("b", "b", 2));
    assert_eq!(b.state, State::Draining(DrainMode::Sessions));
    assert!(places(DEMO).is_empty());
}

#[test]
fn labels_may_be_booleans_numbers_and_unquoted() {
    let text = "[[service]]\nname='a'\nbackends=['192.0.2.1:1']\n[service.labels]\ncom.docker.lb.hosts='a.com'\n\
                com.docker.lb.ip_hash=true\n'com.docker.lb.port'=99\n";
    let services = read(text, &mut HashMap::new());
    assert!(services[0].errors.is_empty() && services[0].config.ip_hash, "{services:?}");
    assert_eq!(services[0].backends[0].addr.map(|addr| addr.port()), Some(99));
}

#[test]
fn a_mistake_leaves_only_its_service_out() {
    let text = format!(
        "{DEMO}{}{}{}",
        "[[service]]\nname='wrong-port'\npublish=['99999/tcp']\nbackends=['192.0.2.1:1']\nlabels={'com.docker.lb.ip_hash'='true'}\n",
        "[[service]]\nname='unknown'\nbackends=['192.0.2.1:1']\nlabels={'com.docker.lb.host'='a.com', 'com.docker.lb.hosts'='b.com'}\n",
        "[[service]]\nname='twice'\npublish=['8080:1/tcp','8081:1/tcp']\nbackends=['192.0.2.1:1']\nlabels={'com.docker.lb.ip_hash'='true'}\n",
    );
    let services = read(&text, &mut HashMap::new());
    let errors: Vec<usize> = services.iter().map(|service| service.errors.len()).collect();
    assert_eq!(errors, [0, 1, 1, 1], "{services:?}");
    assert!(services[1].backends.is_empty() && services[1].publish.is_empty());
    assert!(services[2].config.hosts.len() == 1 && services[2].backends.len() == 1);
    assert_eq!(services[3].publish, [Publish { port: 8081, target: 1, proto: Proto::Tcp }]);
}

#[test]
fn every_mistake_is_found_with_its_place() {
    let text = "[[service]]\nname = 'a'\ncolour = 1\npublish = ['8080/tcp', '0/tcp']\nbackends = ['192.0.2.1',\n  \
                { addr = 'host:1', wait = 2 }, 7]\n[service.labels]\n'com.docker.lb.port' = 'x'\n\
                'sticky.drian' = 'y'\n'com.docker.lb.ip_hash' = 'ture'\n[[service]]\npublish = 'x'\n";
    let expected = [
        (3, 1, "colour"),
        (4, 24, "publish"),
        (5, 13, "backends"),
        (6, 12, "backends"),
        (6, 22, "backends.wait"),
        (6, 34, "backends"),
        (8, 24, "com.docker.lb.port"),
        (9, 1, "sticky.drian"),
        (10, 27, "com.docker.lb.ip_hash"),
        (11, 1, "com.docker.lb.hosts"),
        (11, 1, "name"),
        (12, 11, "publish"),
    ];
    let mut found = places(text);
    found.sort();
    assert_eq!(found, expected.map(|(line, column, label)| (line, column, label.to_owned())));
    let one = check("[[service]]\nname = 'a'\nname = 'b'\n", &Instance::default());
    assert_eq!(one.len(), 1, "{one:?}");
    assert_eq!(one[0].line, 3);
    let line = check("[[services]]\nname = 'a'\n", &Instance::default())[0].to_string();
    assert_eq!(line, "1:3: `services` is not known here; a file of services has only [[service]]");
}

#[test]
fn a_contested_port_and_a_repeated_name_have_their_place_too() {
    let service = |name: &str| {
        format!(
            "[[service]]\nname='{name}'\npublish=['8080:1']\nlabels={{'com.docker.lb.ip_hash'='true'}}\n"
        )
    };
    assert_eq!(
        places(&format!("{}{}", service("a"), service("b"))),
        [(7, 10, "publish".to_owned())]
    );
    let services =
        read(&format!("{}{}{}", service("a"), service("a"), service("a")), &mut HashMap::new());
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["a", "a (number 2)", "a (number 3)"]);
}

#[test]
fn a_service_that_became_wrong_stays_as_it_was() {
    let mut good = HashMap::new();
    read(DEMO, &mut good);
    let services = read(&DEMO.replace("192.0.2.11:8080", "192.0.2.11"), &mut good);
    assert_eq!(services[0].backends.len(), 2);
    assert_eq!(services[0].errors.len(), 1, "{:?}", services[0].errors);
    let services = read("[[service]]\nname='other'\nbackends=[]\n", &mut good);
    assert_eq!(services.len(), 1);
    assert!(!good.contains_key("demo"));
}

#[tokio::test]
async fn changes_of_the_file_are_followed_however_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.toml");
    let (provider, mut found) = Provider::new(
        path.clone(),
        Instance::default(),
        Found::before_first_look("file", Snapshot::default(), SystemTime::now()),
    );
    let task = tokio::spawn(provider.run());
    until(&mut found, |found| {
        found.status.error.as_ref().is_some_and(|e| e.contains("cannot be read"))
    })
    .await;

    std::fs::write(&path, DEMO).unwrap();
    until(&mut found, |found| found.status.connected && backends(found) == 2).await;

    // As editors do it: a new file takes the place of the old one.
    let replace = |path: &Path, text: &str| {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, path).unwrap();
    };
    let changed = Instant::now();
    replace(&path, &DEMO.replace("backends = [", "backends = ['192.0.2.13:8080', "));
    let now = until(&mut found, |found| backends(found) == 3).await;
    assert!(
        now.event_at >= changed && changed.elapsed() < Duration::from_secs(2),
        "{:?}",
        changed.elapsed()
    );

    replace(&path, "[[service]\n");
    let broken = until(&mut found, |found| !found.status.connected).await;
    assert_eq!(backends(&broken), 3);
    assert!(
        broken.status.error.as_ref().is_some_and(|error| error.contains("services.toml:1:")),
        "{broken:?}"
    );

    replace(&path, DEMO);
    let healed = until(&mut found, |found| found.status.connected && backends(found) == 2).await;
    assert_eq!(healed.status.error, None);
    task.abort();
}

#[test]
fn a_backend_may_have_a_second_address_of_the_same_port() {
    let text = |backend: &str| format!("[[service]]\nname='a'\nbackends=[{backend}]\n");
    let good = text("{ addr = '192.0.2.1:80', addr_v6 = '[2001:db8::1]:80' }");
    let services = read(&good, &mut HashMap::new());
    assert_eq!(services[0].backends[0].addr_v6, Some("2001:db8::1".parse().unwrap()));
    for wrong in ["'[2001:db8::1]:81'", "'192.0.2.2:80'", "'2001:db8::1'", "1"] {
        let text = text(&format!("{{ addr = '192.0.2.1:80', addr_v6 = {wrong} }}"));
        let told = places(&text);
        let about =
            told.iter().filter(|(line, _, label)| *line == 3 && label.starts_with("backends"));
        assert_eq!(about.count(), 1, "{wrong}: {told:?}");
    }
}
