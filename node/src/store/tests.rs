use std::{
    fs::File,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use murmur_core::{
    id::{AgentId, ConversationId, MessageId},
    tier::Tier,
};

use super::{
    delivery::DeliveryRow,
    inbox::{Arrival, Hold, InboxMessage, MessageKind},
    writer::LAZY_MAX,
    *,
};

const SENDER: AgentId = AgentId::from_bytes([1; 16]);
const RECIPIENT: AgentId = AgentId::from_bytes([2; 16]);
const CONVERSATION: ConversationId = ConversationId::from_bytes([3; 16]);
const ROUTE: &str = "mm.in.local.00.0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a.0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";

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
async fn reads_that_panic_leave_the_threads_that_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    store.write(|tx| meta(tx, "a")).await.unwrap();
    for _ in 0..8 {
        assert!(store.read(|_| -> Result<(), StoreError> { panic!("on purpose") }).await.is_err());
    }
    assert_eq!(keys(&store).await, ["a"]);
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

/// Blocks the writing thread in a transaction that has begun, so that all that is queued before `go` gets into the next one together.
fn blocked(store: &Store) -> (mpsc::Sender<()>, impl Future<Output = Result<(), StoreError>> + use<>) {
    let (go, wait) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let blocking = store.queue(move |_| {
        begin.send(()).map_err(|_| StoreError::Closed)?;
        wait.recv().map_err(|_| StoreError::Closed)
    });
    begun.recv().unwrap();
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
async fn a_full_disk_takes_the_whole_transaction_along() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder);
    let options = StoreOptions { readers: 1, pages_max: Some(200), now_ms: 7 };
    let store = Store::open(&folder.path().join("node.db"), &options).unwrap();
    let too_much = |tx: Tx<'_>| -> Result<(), StoreError> {
        tx.conn().execute("INSERT INTO meta (key, value) VALUES ('large', zeroblob(4000000))", [])?;
        Ok(())
    };
    let (go, blocking) = blocked(&store);
    let first = store.queue_plainly(|tx| meta(tx, "a"));
    let failing = store.queue_plainly(too_much);
    let (next, last) = (store.queue(|tx| meta(tx, "b")), store.queue_plainly(|tx| meta(tx, "c")));
    go.send(()).unwrap();
    let (_, first, failing, next, last) = tokio::join!(blocking, first, failing, next, last);
    assert!(matches!(failing, Err(StoreError::Full)), "{failing:?}");
    for other in [first, next, last] {
        assert!(matches!(other, Err(StoreError::Undone)), "{other:?}");
    }
    assert_eq!(keys(&store).await, [""; 0], "what is told to have failed is not there");
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
    let next = move |tx: Tx<'_>| outbox::next_sequence(tx, SENDER, CONVERSATION);
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
    let closed_at = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, &whole).unwrap();
    // The clock of files is coarse: a write right after the close may bear its time.
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(closed_at + Duration::from_secs(1)).unwrap();
    assert!(!closed::take(&path), "somebody else wrote it");

    drop(open(&folder));
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let options = StoreOptions { readers: 1, pages_max: None, now_ms: 7 };
    assert!(matches!(Store::open(&path, &options), Err(OpenError::Damaged { .. })));
    assert!(!closed::take(&path), "what could not be opened was not closed");
}

#[tokio::test]
async fn who_waits_for_short_work_commits_it_and_what_was_queued_before_but_for_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let here = |store: &Store, key: &'static str| {
        let (seen, by) = mpsc::channel();
        let committing = store.queue_here(move |tx| {
            seen.send(thread::current().id()).unwrap();
            meta(tx, key)
        });
        (committing, by)
    };
    let began = Instant::now();
    drop(store.queue_lazily::<_, StoreError, _>(|tx| meta(tx, "a")));
    let (committing, by) = here(&store, "b");
    // Later the writing thread may have taken its turn with what nobody waits for.
    if thread::available_parallelism().unwrap().get() > 1 && began.elapsed() < LAZY_MAX {
        assert_eq!(by.try_recv(), Ok(thread::current().id()));
    }
    committing.await.unwrap();
    assert_eq!(keys(&store).await, ["a", "b"]);

    // What somebody else waits for may take long; it returns at once, and its turn comes behind that.
    let (go, blocking) = blocked(&store);
    let (committing, by) = here(&store, "c");
    go.send(()).unwrap();
    let (first, second): (_, Result<(), StoreError>) = tokio::join!(blocking, committing);
    assert!(first.is_ok() && second.is_ok());
    assert_ne!(by.recv().unwrap(), thread::current().id());
    assert_eq!(keys(&store).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_committed_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let committing = store.queue_lazily(|tx| meta(tx, "a"));
    let committed: Result<(), StoreError> = committing.await;
    assert!(committed.is_ok());
    drop(store.queue_lazily::<_, StoreError, _>(|tx| meta(tx, "b")));
    drop(store);
    assert_eq!(keys(&open(&folder)).await, ["a", "b"], "also when the store is closed");
}

fn sent(sender: AgentId, number: u8) -> outbox::OutboxRow {
    outbox::OutboxRow {
        msg_id: MessageId::from_bytes([number; 16]),
        sender,
        conversation_id: CONVERSATION,
        sequence_epoch: 7,
        sequence: u64::from(number),
        kind: MessageKind::Message,
        inner: bytes::Bytes::new(),
        created_ms: 1,
        ttl_seconds: 60,
        traceparent: String::new(),
    }
}

fn arrival(number: u8, received_ms: u64) -> Arrival {
    let message = InboxMessage {
        msg_id: MessageId::from_bytes([number; 16]),
        conversation_id: CONVERSATION,
        kind: MessageKind::Message,
        from: "/w/acme/u/jdoe/ada".parse().unwrap(),
        from_agent_id: SENDER,
        to: "/w/acme/u/jdoe/bob".parse().unwrap(),
        tier: Tier::Verified,
        content_type: "text/plain".to_owned(),
        body: bytes::Bytes::from_static(b"hello"),
        in_reply_to: None,
        created_ms: received_ms,
        received_ms,
        sequence: u64::from(number),
        cursor: 0,
        redelivered: false,
        traceparent: String::new(),
        deadline_ms: None,
        file: None,
        gap: false,
    };
    let digest = [number; 32];
    Arrival {
        message,
        recipient: RECIPIENT,
        env_digest: digest,
        inner_digest: digest,
        sequence_epoch: 7,
        reply_route: None,
    }
}

async fn insert(store: &Store, number: u8, received_ms: u64) -> u64 {
    store.write(move |tx| inbox::insert(tx, &arrival(number, received_ms), None)).await.unwrap()
}

#[tokio::test]
async fn a_new_epoch_goes_on_behind_what_the_store_had_come_to() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    insert(&store, 1, 10).await;
    store.begin_epoch(20, 150).await.unwrap();
    assert_eq!(store.mark().await.unwrap(), 150);
    assert_eq!(insert(&store, 2, 20).await, 151);
    store.begin_epoch(30, u64::MAX).await.unwrap();
    assert!(insert(&store, 3, 30).await > 151, "whatever the control plane remembers");
}

#[tokio::test]
async fn what_is_held_is_given_back_and_was_never_unread() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let agent = "INSERT INTO local_agent (agent_id, slug, kind, description, group_name, created_ms, unread)
        VALUES (?1, '/w/acme/u/jdoe/bob', 1, '', '', 1, 0)";
    store.write(move |tx| Ok(tx.conn().execute(agent, [RECIPIENT.as_bytes()]).map(drop)?)).await.unwrap();
    let hold = Hold { cursor: -1, not_before_ms: 10, patience_ms: 20 };
    store.write(move |tx| inbox::insert(tx, &arrival(1, 10), Some(hold))).await.unwrap();
    assert_eq!(store.read(agents::with_unread).await.unwrap(), [RECIPIENT]);
    assert_eq!(store.write(|tx| inbox::give_back(tx, RECIPIENT, 30, 9)).await.unwrap().len(), 1);
    assert_eq!(store.read(|tx| agents::unread(tx, RECIPIENT)).await.unwrap(), 0);
    assert!(store.read(agents::with_unread).await.unwrap().is_empty());
}

#[tokio::test]
async fn no_cursor_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    assert_eq!((insert(&store, 1, 10).await, insert(&store, 2, 20).await), (1, 2));
    let forget =
        |number: u8| move |tx: Tx<'_>| inbox::forget(tx, SENDER, MessageId::from_bytes([number; 16]), RECIPIENT);
    store.write(forget(2)).await.unwrap();
    assert_eq!(insert(&store, 3, 30).await, 3);
    store.write(forget(1)).await.unwrap();
    store.write(forget(3)).await.unwrap();
    drop(store);
    let store = open(&folder);
    assert_eq!(store.mark().await.unwrap(), 3, "it never falls");

    let hold = Hold { cursor: -1, not_before_ms: 40, patience_ms: 50 };
    store.write(move |tx| inbox::insert(tx, &arrival(4, 40), Some(hold))).await.unwrap();
    assert_eq!(insert(&store, 5, 50).await, 4);
    let shown = store.write(|tx| order::show(tx, 1, false)).await.unwrap().unwrap();
    assert_eq!(shown.cursor, 5);
    assert_eq!(insert(&store, 6, 60).await, 6);
}

#[tokio::test]
async fn what_is_held_and_deleted_is_no_cursor_that_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    for number in 1..=3_u8 {
        let hold = Hold { cursor: -i64::from(number), not_before_ms: 40, patience_ms: 50 };
        store.write(move |tx| inbox::insert(tx, &arrival(number, 40), Some(hold))).await.unwrap();
    }
    store.write(|tx| inbox::forget(tx, SENDER, MessageId::from_bytes([1; 16]), RECIPIENT)).await.unwrap();
    assert_eq!(store.mark().await.unwrap(), 0);
    assert_eq!(insert(&store, 4, 50).await, 1);
}

#[tokio::test]
async fn what_left_and_is_deleted_twice_takes_no_other_along() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let receipt = |number: u8| ack::AckRow {
        id: 0,
        acker: RECIPIENT,
        to_agent: SENDER,
        route: None,
        msg_id: MessageId::from_bytes([number; 16]),
        env_digest: [number; 32],
        status: ack::STATUS_DELIVERED,
        code: 0,
        retry_after_s: 0,
    };
    let add =
        async |number: u8, now_ms| store.write(move |tx| ack::insert(tx, &receipt(number), now_ms)).await.unwrap();
    let (first, second) = (add(1, 10).await, add(2, 10).await);
    assert!(first < second);
    store.write(move |tx| ack::delete(tx, &[first, second])).await.unwrap();
    let third = add(3, 11).await;
    store.write(move |tx| ack::delete(tx, &[first, second])).await.unwrap();
    let left = store.read(|tx| ack::pending(tx, 0, 9)).await.unwrap();
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), [third]);
}

#[tokio::test]
async fn what_an_agent_has_waiting_keeps_a_persons_from_no_list() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let wait = |tx: Tx<'_>| {
        for (agent, kind) in [(4, 2), (5, 1)] {
            let sql = "INSERT INTO local_agent (agent_id, slug, kind, description, group_name, created_ms)
                VALUES (?1, '/w/acme/u/jdoe/' || ?2, ?3, '', '', 1)";
            tx.conn().execute(sql, rusqlite::params![[agent; 16], format!("a{agent}"), kind])?;
            for number in 0..3 {
                let message = sent(AgentId::from_bytes([agent; 16]), agent * 16 + number);
                outbox::insert(tx, &message, None, &[0; 32])?;
                delivery::insert(tx, &DeliveryRow::new(&message, RECIPIENT, "/w/acme/u/jdoe/bob".parse().unwrap()))?;
            }
        }
        Ok(())
    };
    store.write(wait).await.unwrap();
    let open = async |whose, after| store.read(move |tx| listing::open(tx, whose, None, after, 2)).await.unwrap();
    let of_people = open(listing::Whose::Interactive, None).await;
    let agents = |listed: &[listing::Listed]| listed.iter().map(|one| one.row.sender).collect::<Vec<_>>();
    assert_eq!(agents(&of_people), [AgentId::from_bytes([5; 16]); 2]);
    let last = of_people.last().map(|one| (one.row.msg_id, one.row.recipient));
    assert_eq!(agents(&open(listing::Whose::Interactive, last).await), [AgentId::from_bytes([5; 16])]);
    let other = AgentId::from_bytes([4; 16]);
    assert_eq!(agents(&open(listing::Whose::Agent(other), None).await), [other; 2]);
}

#[tokio::test]
async fn the_place_of_a_time_is_found_among_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let first = async |since_ms| store.read(move |tx| inbox::first_since(tx, since_ms)).await.unwrap();
    assert_eq!(first(0).await, 1);
    for number in 1..=40 {
        insert(&store, number, u64::from(number) * 10).await;
    }
    let remove = |tx: Tx<'_>| Ok(tx.conn().execute("DELETE FROM inbox WHERE cursor BETWEEN 11 AND 20", [])?);
    assert_eq!(store.write(remove).await.unwrap(), 10);
    assert_eq!((first(1).await, first(10).await, first(11).await), (1, 1, 2));
    // None of these is there; the next one there is.
    assert!((11..=21).contains(&first(150).await));
    assert_eq!((first(211).await, first(400).await, first(401).await), (22, 40, 41));

    let read = store.write(|tx| inbox::mark_read(tx, &[1, 2, 30], 1_000)).await.unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!(store.write(|tx| inbox::prune(tx, 300, 1)).await.unwrap(), 1);
    assert_eq!(store.write(|tx| inbox::prune(tx, 300, 9)).await.unwrap(), 1, "what is unread or newer stays");
    let all = inbox::Filter::default();
    let listed = store.read(move |tx| inbox::list(tx, RECIPIENT, &all, 100)).await.unwrap();
    let cursors: Vec<u64> = listed.iter().map(|message| message.cursor).collect();
    assert_eq!(cursors, (3..=10).chain(21..=40).collect::<Vec<_>>());
    let newest = store.read(|tx| inbox::newest(tx, RECIPIENT, 12)).await.unwrap();
    assert_eq!(newest.iter().map(|message| message.cursor).collect::<Vec<_>>(), (29..=40).collect::<Vec<_>>());
}

/// A database as the version before wrote it, with a message on its way in each direction.
const OF_BEFORE: &str = "
    INSERT INTO local_agent (agent_id, slug, kind, description, group_name, created_ms, unread)
        VALUES (x'02020202020202020202020202020202', '/w/acme/u/jdoe/bob', 1, '', '', 1, -2);
    INSERT INTO outbox (msg_id, sender_agent, conversation_id, sequence_epoch, sequence, kind, inner, created_ms, ttl_seconds, traceparent,
        client_key, content_digest) VALUES (x'05050505050505050505050505050505', x'01010101010101010101010101010101',
        x'03030303030303030303030303030303', 7, 1, 1, x'aa', 10, 60, '', 'key', zeroblob(32));
    INSERT INTO delivery (msg_id, recipient, sender_agent, to_slug, sequence, state, seal_attempt, publish_tries, republish_count,
        backoff_prev_ms, next_at_ms, open, published, env_digest, created_ms, expires_ms) VALUES (x'05050505050505050505050505050505',
        x'02020202020202020202020202020202', x'01010101010101010101010101010101', '/w/acme/u/jdoe/bob', 1, 'QUEUED', 0, 0, 0, 0, 20, 1, 0,
        NULL, 10, 60010);
    INSERT INTO copy (msg_id, recipient, env_digest, seal_attempt, prekey_id, route, nats_msg_id, env_bytes) VALUES
        (x'05050505050505050505050505050505', x'02020202020202020202020202020202', x'0000000000000000000000000000000000000000000000000000000000000000',
            0, x'0000000000000000', 'ROUTE', 'a', x'bb'),
        (x'05050505050505050505050505050505', x'02020202020202020202020202020202', x'0101010101010101010101010101010101010101010101010101010101010101',
            1, x'0000000000000000', 'ROUTE', 'b', x'cc'),
        (x'05050505050505050505050505050505', x'02020202020202020202020202020202', x'0202020202020202020202020202020202020202020202020202020202020202',
            0, x'0000000000000000', 'ROUTE', 'c', x'dd');
    INSERT INTO inbox (cursor, sender_agent, msg_id, recipient, env_digest, inner_digest, conversation_id, sequence_epoch, sequence, kind,
        from_slug, to_slug, tier, content_type, body, traceparent, created_ms, received_ms, read_ms) VALUES
        (3, x'01010101010101010101010101010101', x'06060606060606060606060606060606', x'02020202020202020202020202020202', zeroblob(32),
            zeroblob(32), x'03030303030303030303030303030303', 7, 1, 1, '/w/acme/u/jdoe/ada', '/w/acme/u/jdoe/bob', 'verified', 'text/plain',
            x'dd', '', 10, 10, 12),
        (9, x'01010101010101010101010101010101', x'07070707070707070707070707070707', x'02020202020202020202020202020202', zeroblob(32),
            zeroblob(32), x'03030303030303030303030303030303', 7, 2, 1, '/w/acme/u/jdoe/ada', '/w/acme/u/jdoe/bob', 'verified', 'text/plain',
            x'ee', '', 11, 11, NULL);
    DELETE FROM inbox WHERE cursor = 9;
    INSERT INTO ack_outbox (acker, to_agent, msg_id, env_digest, status, code, retry_after_s, created_ms)
        VALUES (x'02020202020202020202020202020202', x'01010101010101010101010101010101', x'06060606060606060606060606060606',
            zeroblob(32), 1, 0, 0, 10);
";

#[tokio::test]
async fn a_database_of_before_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let before = rusqlite::Connection::open(&path).unwrap();
    for sql in &open::MIGRATIONS[..11] {
        before.execute_batch(sql).unwrap();
    }
    before.execute_batch(&OF_BEFORE.replace("ROUTE", ROUTE)).unwrap();
    before.pragma_update(None, "user_version", 11).unwrap();
    drop(before);
    let store = open(&folder);
    let msg_id = MessageId::from_bytes([5; 16]);

    let (message, row) = store
        .read(move |tx| Ok((outbox::get(tx, msg_id)?.unwrap(), delivery::get(tx, msg_id, RECIPIENT)?.unwrap())))
        .await
        .unwrap();
    assert_eq!((message.sender, &message.inner[..], row.copy_id), (SENDER, &[0xaa][..], Some(3)));
    for (name, attempt, bytes) in [(0, 0, 0xbb), (1, 1, 0xcc), (2, 0, 0xdd)] {
        let (of, digest) = (row.clone(), [name; 32]);
        let copy = store.read(move |tx| copy::get(tx, &of, &digest)).await.unwrap().unwrap();
        assert_eq!((copy.seal_attempt, copy.env_bytes.as_deref()), (attempt, Some(&[bytes][..])));
    }
    let used = store.read(|tx| outbox::used_key(tx, SENDER, "key")).await.unwrap().unwrap();
    assert_eq!(used.msg_id, msg_id);
    assert_eq!(store.read(delivery::open_lanes).await.unwrap(), [(SENDER, RECIPIENT)]);

    assert_eq!(store.mark().await.unwrap(), 9);
    assert_eq!(insert(&store, 8, 20).await, 10, "no cursor is given twice");
    assert_eq!(store.read(|tx| agents::unread(tx, RECIPIENT)).await.unwrap(), 1);
    let all = inbox::Filter::default();
    let listed = store.read(move |tx| inbox::list(tx, RECIPIENT, &all, 9)).await.unwrap();
    let bodies: Vec<&[u8]> = listed.iter().map(|message| &message.body[..]).collect();
    assert_eq!(bodies, [&[0xdd][..], b"hello"]);
    assert_eq!(store.read(|tx| ack::pending(tx, 0, 9)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_number_that_another_delivery_has_got_names_no_copy() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let row = |number: u8| DeliveryRow::new(&sent(SENDER, number), RECIPIENT, "/w/acme/u/jdoe/bob".parse().unwrap());
    let copy = |number: u8| copy::CopyRow {
        msg_id: MessageId::from_bytes([number; 16]),
        recipient: RECIPIENT,
        env_digest: [number; 32],
        seal_attempt: 0,
        prekey_id: [0; 8],
        route: ROUTE.parse().unwrap(),
        nats_msg_id: "a".to_owned(),
        env_bytes: Some(bytes::Bytes::from_static(b"sealed")),
    };
    let insert = |number: u8| {
        let (mut row, copy) = (row(number), copy(number));
        store.write(move |tx| copy::insert(tx, &mut row, &copy).map(|()| row))
    };
    let delivered = DeliveryRow { env_digest: Some([1; 32]), ..insert(1).await.unwrap() };
    let closed = delivered.clone();
    store.write(move |tx| copy::close_delivered(tx, &closed)).await.unwrap();
    let other = insert(2).await.unwrap();
    assert_eq!(other.copy_id, delivered.copy_id, "it is free again");

    let late = delivered.clone();
    store.write(move |tx| copy::drop_bytes(tx, &late)).await.unwrap();
    store.write(move |tx| copy::retire(tx, &delivered)).await.unwrap();
    let kept = store.read(move |tx| copy::get(tx, &other, &[2; 32])).await.unwrap().unwrap();
    assert_eq!((kept.seal_attempt, kept.env_bytes.is_some()), (0, true));
}
