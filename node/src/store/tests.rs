use murmur_core::id::AgentId;

use super::*;

fn open(folder: &tempfile::TempDir) -> Store {
    let options = StoreOptions { readers: 1, pages_max: None, now_ms: 7 };
    Store::open(&folder.path().join("node.db"), &options).unwrap()
}

fn meta(tx: Tx<'_>, key: &str) -> Result<(), StoreError> {
    tx.conn().execute("INSERT INTO meta (key, value) VALUES (?1, 1)", [key])?;
    Ok(())
}

async fn keys(store: &Store) -> Vec<String> {
    let read = store.read(|tx| {
        let mut statement = tx.conn().prepare("SELECT key FROM meta WHERE key <> 'sequence_epoch' ORDER BY key")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    read.await.unwrap()
}

#[tokio::test]
async fn a_closure_that_fails_takes_nothing_but_itself_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let first = store.queue(|tx| meta(tx, "a"));
    let failing = store.queue(|tx| {
        meta(tx, "b")?;
        Err::<(), _>(StoreError::Corrupt("on purpose"))
    });
    let panicking = store.queue(|tx| -> Result<(), StoreError> {
        meta(tx, "c")?;
        panic!("on purpose");
    });
    let last = store.queue_lazily(|tx| meta(tx, "d"));
    let (first, failing, panicking, last): (Result<(), StoreError>, _, _, Result<(), StoreError>) =
        tokio::join!(first, failing, panicking, last);
    assert!(first.is_ok() && failing.is_err() && panicking.is_err() && last.is_ok());
    assert_eq!(keys(&store).await, ["a", "d"]);
}

/// Queues work behind work that blocks the writing thread, so that all of it gets into one transaction.
fn blocked(store: &Store) -> (std::sync::mpsc::Sender<()>, impl Future<Output = Result<(), StoreError>> + use<>) {
    let (go, wait) = std::sync::mpsc::channel();
    let blocking = store.queue(move |_| wait.recv().map_err(|_| StoreError::Closed));
    (go, blocking)
}

#[tokio::test]
async fn plain_work_that_fails_before_a_change_fails_alone_and_later_takes_its_transaction_along_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let early = |store: &Store| store.queue_plainly(|_| Err::<(), _>(StoreError::Corrupt("on purpose")));
    let late = |store: &Store| {
        store.queue_plainly(|tx| {
            meta(tx, "late")?;
            Err::<(), _>(StoreError::Corrupt("on purpose"))
        })
    };
    let (go, blocking) = blocked(&store);
    let (first, failing) = (store.queue_plainly(|tx| meta(tx, "a")), early(&store));
    go.send(()).unwrap();
    let (_, first, failing): (_, Result<(), StoreError>, _) = tokio::join!(blocking, first, failing);
    assert!(first.is_ok() && failing.is_err());

    let (go, blocking) = blocked(&store);
    let (other, failing) = (store.queue(|tx| meta(tx, "b")), late(&store));
    go.send(()).unwrap();
    let (_, other, failing): (_, Result<(), StoreError>, _) = tokio::join!(blocking, other, failing);
    assert!(matches!((other, failing), (Err(StoreError::Undone), Err(StoreError::Corrupt(_)))));

    // What comes again takes nothing along.
    let (go, blocking) = blocked(&store);
    let (other, failing) = (store.queue_plainly(|tx| meta(tx, "c")), late(&store));
    go.send(()).unwrap();
    let (_, other, failing): (_, Result<(), StoreError>, _) = tokio::join!(blocking, other, failing);
    assert!(other.is_ok() && failing.is_err());
    assert_eq!(keys(&store).await, ["a", "c"]);
}

#[tokio::test]
async fn many_writers_share_a_commit_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let writes = (0..300).map(|n| store.write(move |tx| meta(tx, &format!("{n:03}"))));
    assert!(futures::future::join_all(writes).await.iter().all(Result::is_ok));
    assert_eq!(store.sequence_epoch(), 7);
    drop(store);
    let again =
        Store::open(&folder.path().join("node.db"), &StoreOptions { readers: 1, pages_max: None, now_ms: 8 }).unwrap();
    assert_eq!(keys(&again).await.len(), 300);
    assert_eq!(again.sequence_epoch(), 7);
}

#[tokio::test]
async fn only_one_process_opens_it() {
    let folder = tempfile::tempdir().unwrap();
    let _store = open(&folder);
    let options = StoreOptions { readers: 1, pages_max: None, now_ms: 7 };
    let second = Store::open(&folder.path().join("node.db"), &options);
    assert!(matches!(second, Err(OpenError::Locked { .. })));
}

#[tokio::test]
async fn a_full_store_says_so_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { readers: 1, pages_max: Some(96), now_ms: 7 };
    let store = Store::open(&folder.path().join("node.db"), &options).unwrap();
    let big = store.write(|tx| {
        tx.conn().execute("INSERT INTO meta (key, value) VALUES ('big', zeroblob(1000000))", [])?;
        Ok(())
    });
    assert!(matches!(big.await, Err(StoreError::Full)));
    store.write(|tx| meta(tx, "small")).await.unwrap();
    assert_eq!(keys(&store).await, ["small"]);
}

#[tokio::test]
async fn sequences_ascend_per_conversation_and_give_back_what_was_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let (agent, conversation) = (AgentId::from_bytes([1; 16]), murmur_core::id::ConversationId::from_bytes([2; 16]));
    let next = move |tx: Tx<'_>| outbox::next_sequence(tx, agent, conversation);
    assert_eq!(store.write(next).await.unwrap(), 1);
    let lost = store.write(move |tx| next(tx).and(Err::<u64, _>(StoreError::Corrupt("on purpose"))));
    assert!(lost.await.is_err());
    assert_eq!(store.write(next).await.unwrap(), 2);
}

#[tokio::test]
async fn only_what_is_as_it_was_closed_is_not_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let store = open(&folder);
    store.write(|tx| meta(tx, "a")).await.unwrap();
    assert!(!closed::take(&path), "it is open");
    drop(store);
    assert!(closed::take(&path));
    assert!(!closed::take(&path), "the note goes with the look");

    drop(open(&folder));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole).unwrap();
    assert!(!closed::take(&path), "somebody else wrote it");

    drop(open(&folder));
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let options = StoreOptions { readers: 1, pages_max: None, now_ms: 7 };
    assert!(matches!(Store::open(&path, &options), Err(OpenError::Damaged { .. })));
    assert!(!closed::take(&path), "what could not be opened was not closed");
}
