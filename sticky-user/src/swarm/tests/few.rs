//! How a few containers are looked for on the gateway bridge.

use serde_json::json;

use crate::docker::tests::fake::Fake;
use crate::swarm::api::Api;

#[tokio::test]
async fn the_bridge_is_asked_again_only_if_its_text_is_of_another_form() {
    let fake = Fake::start();
    fake.demo(40);
    let api = Api::connect(Some(&fake.url())).await.unwrap();
    let all = api.gwbridge(None).await.unwrap();
    assert_eq!(all.len(), 40);
    let mut ids: Vec<String> = all.keys().cloned().collect();
    ids.push("nowhere".to_owned());
    fake.calls();
    assert_eq!(api.gwbridge(Some(&ids)).await.unwrap(), all);
    let few = &ids[38..];
    let found = api.gwbridge(Some(few)).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|(id, addresses)| few.contains(id) && all.get(id) == Some(addresses)));
    assert_eq!(fake.calls().len(), 2, "one each");
    fake.set("/networks/docker_gwbridge", json!({"Containers": null}));
    assert!(api.gwbridge(Some(few)).await.unwrap().is_empty());
    assert_eq!(fake.calls().len(), 2, "both of the last");
}
