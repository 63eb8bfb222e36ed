//! What the tools over the control plane share: whom they call as, whose slug is meant, and writes that can be repeated.

use std::future::Future;

use murmur_core::slug::{Slug, SlugText};
use murmur_proto::{client::ControlClient, node::v1::GetStatusRequest};
use tonic::{Response, Status};

use super::{Call, send::new_key};
use crate::{errors::Failure, render};

impl Call {
    /// The control plane's services over the node's socket, as the agent that this session is bound to.
    pub(super) async fn control(&self) -> Result<ControlClient, Failure> {
        let speaker = self.speaker().await?;
        self.shared.node.control(&speaker)
    }

    /// A slug as typed, in the workspace that the call names. The control plane resolves it.
    pub(super) async fn slug(&self, slug: Option<String>, workspace: Option<&str>) -> Result<String, Failure> {
        let slug = slug.unwrap_or_default();
        match workspace {
            None => Ok(slug),
            Some(workspace) if is_relative(&slug) => beside(slug, workspace, &self.own_workspace().await?),
            Some(workspace) => within(slug, workspace),
        }
    }

    /// The workspace of this session's agent, which is its node's.
    async fn own_workspace(&self) -> Result<String, Failure> {
        if let Some(slug) = self.shared.binding.slug().and_then(|slug| slug.parse::<Slug>().ok()) {
            return Ok(slug.workspace().to_string());
        }
        // There is no session yet, or another one has it.
        let status = self.shared.node.answer(self.node()?.host.get_status(GetStatusRequest {})).await?;
        Ok(status.workspace)
    }

    /// Waits for an answer of the control plane.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.shared.node.answer_from_afar(call).await
    }

    /// Makes a call that changes something, under the caller's key or one of ours, so that it can be made again when its answer got
    /// lost: once by itself, then by whoever reads the failure.
    pub(super) async fn write<T, F>(&self, key: Option<String>, once: impl Fn(String) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let key = key.unwrap_or_else(new_key);
        let first = match self.answer(once(key.clone())).await {
            Err(failure) if failure.unreachable => self.answer(once(key.clone())).await,
            first => first,
        };
        first.map_err(|failure| repeatable(failure, &key))
    }
}

/// Whether the caller's own place says which agent is meant. One that is left out means the caller, too.
fn is_relative(slug: &str) -> bool {
    slug.is_empty() || matches!(SlugText::parse(slug), Ok(SlugText::Relative { .. } | SlugText::SelfSlug))
}

/// A relative slug is looked for around the caller, whose workspace must be the one that is named.
fn beside(slug: String, workspace: &str, own: &str) -> Result<String, Failure> {
    if own == workspace { Ok(slug) } else { Err(elsewhere(&slug, workspace, own)) }
}

/// An absolute slug inside a named workspace.
fn within(slug: String, workspace: &str) -> Result<String, Failure> {
    match SlugText::parse(&slug) {
        Ok(SlugText::Absolute { workspace: Some(named), .. }) if named.as_str() != workspace => {
            Err(elsewhere(&slug, workspace, named.as_str()))
        }
        Ok(SlugText::Absolute { workspace: None, .. }) => Ok(format!("/w/{workspace}{slug}")),
        // The other end says best what is wrong with a slug.
        Ok(_) | Err(_) => Ok(slug),
    }
}

fn elsewhere(slug: &str, workspace: &str, found: &str) -> Failure {
    let (slug, workspace) = (render::short(slug), render::short(workspace));
    Failure::argument(format!("argument `workspace` is `{workspace}`, and the slug `{slug}` is of `{found}`"))
}

/// Says how to repeat a call of which nobody knows whether it was taken.
fn repeatable(mut failure: Failure, key: &str) -> Failure {
    if failure.is_uncertain() {
        let advice = format!(" Repeat it with idempotency_key=\"{key}\", so that it cannot be done twice.");
        failure.remedy.push_str(&advice);
    }
    failure
}

/// Absent instead of empty.
pub(super) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(slug: &str, workspace: &str) -> Result<String, String> {
        let slug = slug.to_owned();
        let placed = if is_relative(&slug) { beside(slug, workspace, "acme") } else { within(slug, workspace) };
        placed.map_err(|failure| failure.happened)
    }

    #[test]
    fn a_slug_never_loses_or_changes_its_workspace() {
        assert_eq!(at("/u/jo/a", "acme"), Ok("/w/acme/u/jo/a".to_owned()));
        assert_eq!(at("/u/jo/a", "other"), Ok("/w/other/u/jo/a".to_owned()));
        assert_eq!(at("a", "acme"), Ok("a".to_owned()));
        assert_eq!(at("", "acme"), Ok(String::new()));
        let refused = "argument `workspace` is `other`, and the slug `a` is of `acme`";
        assert_eq!(at("a", "other"), Err(refused.to_owned()));
        assert!(at("", "other").is_err() && at("self", "other").is_err());
        assert!(at("/w/acme/u/jo/a", "other").is_err());
        assert_eq!(at("/w/acme/u/jo/a", "acme"), Ok("/w/acme/u/jo/a".to_owned()));
    }
}
