//! Requests and time, over a real store.

use super::*;
use crate::store::StoreOptions;

const ASKED_MS: u64 = 1_000_000;

fn new(request_id: &str) -> NewPermission {
    NewPermission {
        request_id: request_id.to_owned(),
        agent: AgentId::from_bytes([1; 16]),
        slug: "/w/acme/u/jo/worker".parse().unwrap(),
        instance: "1".to_owned(),
        tool_name: "Bash".to_owned(),
        description: String::new(),
        input_preview: String::new(),
        life_ms: LIFE_MS,
    }
}

#[tokio::test]
async fn a_request_takes_no_answer_when_its_hour_is_over_by_whatever_way() {
    let home = tempfile::tempdir().unwrap();
    let options = StoreOptions { readers: 1, pages_max: None, now_ms: ASKED_MS };
    let store = Store::open(&home.path().join("store.db"), &options).unwrap();
    let (row, _) = store.write(|tx| table::insert(tx, &new("abcde"), ASKED_MS)).await.unwrap();
    assert_eq!(row.expires_ms, ASKED_MS + LIFE_MS);
    let owner = Answerer::Owner("jo".parse().unwrap());
    let at = async |now_ms: u64| {
        let (owner, number) = (owner.clone(), row.number);
        store
            .write(move |tx| {
                let found = find(tx, &owner, &[], "abcde", None, now_ms).map_err(|error| error.to_string());
                let listed = table::list(tx, false, now_ms)?.len();
                let relays = table::open_relays(tx, now_ms)?.len();
                let is_open = table::get(tx, number)?.is_open(now_ms);
                Ok((found.map(|row| row.number), listed, relays, is_open))
            })
            .await
            .unwrap()
    };
    let last = ASKED_MS + LIFE_MS - 1;
    assert_eq!(at(last).await, (Ok(row.number), 1, 0, true));
    let over = "the request `abcde` is over: its time has passed".to_owned();
    assert_eq!(at(last + 1).await, (Err(over), 0, 0, false));
    // Whoever found it in time and answers too late is too late.
    let number = row.number;
    assert!(!store.write(move |tx| table::answer(tx, number, true, "human:jo", last + 1)).await.unwrap());
    assert!(store.write(move |tx| table::answer(tx, number, true, "human:jo", last)).await.unwrap());
    assert!(!store.write(move |tx| table::answer(tx, number, false, "human:jo", last)).await.unwrap());
}
