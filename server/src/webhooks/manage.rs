//! Making, changing and showing sources.

use murmur_core::id::{WebhookId, WorkspaceId};
use murmur_core::slug::{Scope, WorkspaceName};

use super::{WebhookError, Webhooks, lists, secret};
use crate::{
    db::{
        Conn,
        webhook::{self, Kind, Webhook},
        webhook_delivery::{self, Delivery},
    },
    invalid::Invalid,
    page::{Page, broken},
    random,
    tokens::{Principal, target_workspace},
};

/// Sources of one workspace.
const WEBHOOKS_MAX: u64 = 200;
const NAME_BYTES_MAX: usize = 63;
/// How long a secret outlives its successor's birth.
const KEEP_MS_DEFAULT: u64 = 24 * 3600 * 1000;
const KEEP_MS_MAX: u64 = 7 * 24 * 3600 * 1000;

/// A source to make.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// Unique in the workspace.
    pub name: String,
    /// Whose deliveries it takes.
    pub kind: Kind,
    /// What it lets through.
    pub repos: Vec<String>,
    /// What it lets through.
    pub events: Vec<String>,
    /// Whom it lets through.
    pub actors: Vec<String>,
}

/// Lists to replace; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Repositories.
    pub repos: Option<Vec<String>>,
    /// Types.
    pub events: Option<Vec<String>>,
    /// Whose words are delivered.
    pub actors: Option<Vec<String>>,
}

impl Webhooks {
    /// Makes a source, and its secret, which is shown this once.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn create(
        &self,
        caller: &Principal,
        workspace: Option<&WorkspaceName>,
        new: NewWebhook,
    ) -> Result<(Webhook, String), WebhookError> {
        let NewWebhook { name, kind, repos, events, actors } = new;
        check_name(&name)?;
        lists::check(kind, &repos, &events, &actors)?;
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        let workspace_id = whole(&mut tx, caller, workspace).await?;
        if webhook::count(&mut tx, workspace_id).await? >= WEBHOOKS_MAX {
            return Err(WebhookError::Limit(WEBHOOKS_MAX));
        }
        if webhook::by_name(&mut tx, workspace_id, &name).await?.is_some() {
            return Err(WebhookError::Exists(name));
        }
        let made = Webhook {
            id: WebhookId::new_v7(now_ms, random::bytes()?),
            workspace_id,
            name,
            kind,
            repos,
            events,
            actors,
            created_ms: now_ms,
            last_delivery_ms: None,
            old_secret_ms: None,
        };
        let (text, sealed) = secret::make(&self.key, made.id, 1)?;
        webhook::insert(&mut tx, &made).await?;
        webhook::put_secret(&mut tx, made.id, 1, &sealed, now_ms).await?;
        tx.commit().await?;
        tracing::info!(webhook.id = %made.id, "webhook {} made, of kind {kind}", made.name);
        Ok((made, text))
    }

    /// Sources by name, and the token of the next page.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn list(
        &self,
        caller: &Principal,
        workspace: Option<&WorkspaceName>,
        (page_size, page_token): (u32, &str),
    ) -> Result<(Vec<Webhook>, String), WebhookError> {
        let page = Page::new("ListWebhooks", page_size, page_token)?;
        let after = std::str::from_utf8(&page.after).map_err(|_| broken())?;
        let mut tx = self.db.read().await?;
        let workspace_id = whole(&mut tx, caller, workspace).await?;
        let found = webhook::page(&mut tx, workspace_id, after, page.limit()).await?;
        let (found, next) = page.cut(found, |webhook| webhook.name.clone().into_bytes());
        let now_ms = self.clock.now_ms();
        Ok((found.into_iter().map(|webhook| current(webhook, now_ms)).collect(), next))
    }

    /// Replaces what and whom a source lets through.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn update(
        &self,
        caller: &Principal,
        workspace: Option<&WorkspaceName>,
        named: &str,
        changes: Changes,
    ) -> Result<Webhook, WebhookError> {
        let mut tx = self.db.write().await?;
        let mut found = self.named(&mut tx, caller, workspace, named).await?;
        let Changes { repos, events, actors } = changes;
        if repos.is_none() && events.is_none() && actors.is_none() {
            return Err(Invalid::new("repos", "the request changes nothing: set repos, events or actors").into());
        }
        found.repos = repos.unwrap_or(found.repos);
        found.events = events.unwrap_or(found.events);
        found.actors = actors.unwrap_or(found.actors);
        lists::check(found.kind, &found.repos, &found.events, &found.actors)?;
        webhook::update(&mut tx, &found).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// Makes a new secret, which is shown this once; the present one stays good for `keep_ms`, by default a day.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn rotate(
        &self,
        caller: &Principal,
        workspace: Option<&WorkspaceName>,
        named: &str,
        keep_ms: Option<u64>,
    ) -> Result<(Webhook, String), WebhookError> {
        let keep_ms = keep_ms.unwrap_or(KEEP_MS_DEFAULT);
        if keep_ms > KEEP_MS_MAX {
            return Err(Invalid::new("keep_seconds", format!("must be at most {}", KEEP_MS_MAX / 1000)).into());
        }
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        let found = self.named(&mut tx, caller, workspace, named).await?;
        let last = webhook::secrets(&mut tx, found.id, now_ms).await?;
        let number = last.iter().map(|secret| secret.number).max().unwrap_or_default() + 1;
        let (text, sealed) = secret::make(&self.key, found.id, number)?;
        webhook::put_secret(&mut tx, found.id, number, &sealed, now_ms + keep_ms).await?;
        tx.commit().await?;
        tracing::info!(webhook.id = %found.id, "webhook {} has a new secret", found.name);
        Ok((current(Webhook { old_secret_ms: Some(now_ms + keep_ms), ..found }, now_ms), text))
    }

    /// Ends a source.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn delete(
        &self,
        caller: &Principal,
        workspace: Option<&WorkspaceName>,
        named: &str,
    ) -> Result<(), WebhookError> {
        let mut tx = self.db.write().await?;
        let found = self.named(&mut tx, caller, workspace, named).await?;
        webhook::delete(&mut tx, found.workspace_id, found.id).await?;
        tx.commit().await?;
        tracing::info!(webhook.id = %found.id, "webhook {} ended", found.name);
        Ok(())
    }

    /// What came in of late, newest first, and the token of the next page.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub async fn deliveries(
        &self,
        caller: &Principal,
        workspace: Option<&WorkspaceName>,
        named: &str,
        (page_size, page_token): (u32, &str),
    ) -> Result<(Vec<Delivery>, String), WebhookError> {
        let page = Page::new("ListWebhookDeliveries", page_size, page_token)?;
        let before = page.after_number()?;
        let mut tx = self.db.read().await?;
        let found = self.named(&mut tx, caller, workspace, named).await?;
        let rows = webhook_delivery::page(&mut tx, found.id, before, page.limit()).await?;
        let (rows, next) = page.cut(rows, |(number, _)| number.to_be_bytes().to_vec());
        Ok((rows.into_iter().map(|(_, delivery)| delivery).collect(), next))
    }

    /// The source of a name or id.
    pub(super) async fn named(
        &self,
        conn: &mut Conn,
        caller: &Principal,
        workspace: Option<&WorkspaceName>,
        named: &str,
    ) -> Result<Webhook, WebhookError> {
        if named.is_empty() {
            return Err(Invalid::new("webhook", "must be a webhook's name or id").into());
        }
        let workspace_id = whole(conn, caller, workspace).await?;
        let found = match named.parse() {
            Ok(id) => webhook::by_id(conn, id).await?.filter(|webhook| webhook.workspace_id == workspace_id),
            Err(_) => webhook::by_name(conn, workspace_id, named).await?,
        };
        let found = found.ok_or_else(|| WebhookError::NotFound(named.chars().take(64).collect()))?;
        Ok(current(found, self.clock.now_ms()))
    }
}

/// Without the mark of an old secret whose time is over.
fn current(webhook: Webhook, now_ms: u64) -> Webhook {
    Webhook { old_secret_ms: webhook.old_secret_ms.filter(|until_ms| *until_ms > now_ms), ..webhook }
}

/// The workspace, which the caller must reach as a whole: a source feeds agents of every account in it.
async fn whole(
    conn: &mut Conn,
    caller: &Principal,
    named: Option<&WorkspaceName>,
) -> Result<WorkspaceId, WebhookError> {
    let (id, name) = target_workspace(conn, caller, named).await?;
    if !caller.reaches(&Scope::workspace(&name)) {
        let prefix = caller.slug_prefix.as_ref().map(ToString::to_string).unwrap_or_default();
        return Err(WebhookError::Beyond(prefix));
    }
    Ok(id)
}

fn check_name(name: &str) -> Result<(), Invalid> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(plain) || name.starts_with('-') {
        return Err(Invalid::new(
            "name",
            format!("must be 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -, not beginning with -"),
        ));
    }
    if name.parse::<WebhookId>().is_ok() {
        return Err(Invalid::new("name", "must not look like an id"));
    }
    Ok(())
}
