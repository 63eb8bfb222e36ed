//! What the tools over the control plane share: whom they call as, whose slug is meant, and writes that can be repeated.

use std::future::Future;

use murmur_core::slug::{Slug, SlugText};
use murmur_proto::client::ControlClient;
use tonic::{Response, Status};

use super::{Call, send::new_key};
use crate::errors::Failure;

impl Call {
    /// The control plane's services over the node's socket, as the agent that this session is bound to.
    pub(super) async fn control(&self) -> Result<ControlClient, Failure> {
        let speaker = self.speaker().await?;
        self.shared.node.control(&speaker)
    }

    /// A slug as typed, in the workspace that the call names. The control plane resolves it.
    pub(super) fn slug(&self, slug: Option<String>, workspace: Option<&str>) -> Result<String, Failure> {
        let slug = slug.unwrap_or_default();
        let own = self.shared.binding.slug().and_then(|slug| slug.parse::<Slug>().ok());
        match workspace {
            None => Ok(slug),
            Some(workspace) => within(slug, workspace, own.as_ref()),
        }
    }

    /// Waits for an answer of the control plane.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.shared.node.answer(call).await
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

/// The slug inside a named workspace: a relative one is looked for around the caller, who has only one.
fn within(slug: String, workspace: &str, own: Option<&Slug>) -> Result<String, Failure> {
    let other = |found: &str| {
        Failure::argument(format!("argument `workspace` is `{workspace}`, and the slug `{slug}` is of `{found}`"))
    };
    match SlugText::parse(&slug) {
        Ok(SlugText::Absolute { workspace: Some(named), .. }) if named.as_str() != workspace => {
            Err(other(named.as_str()))
        }
        Ok(SlugText::Absolute { workspace: None, .. }) => Ok(format!("/w/{workspace}{slug}")),
        Ok(SlugText::Relative { .. } | SlugText::SelfSlug) => match own {
            Some(own) if own.workspace().as_str() != workspace => Err(other(own.workspace().as_str())),
            _ => Ok(slug),
        },
        // The other end says best what is wrong with a slug.
        Ok(SlugText::Absolute { .. }) | Err(_) => Ok(slug),
    }
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
        let own = "/w/acme/u/jo/lead".parse().unwrap();
        within(slug.to_owned(), workspace, Some(&own)).map_err(|failure| failure.happened)
    }

    #[test]
    fn a_slug_never_loses_or_changes_its_workspace() {
        assert_eq!(at("/u/jo/a", "acme"), Ok("/w/acme/u/jo/a".to_owned()));
        assert_eq!(at("/u/jo/a", "other"), Ok("/w/other/u/jo/a".to_owned()));
        assert_eq!(at("a", "acme"), Ok("a".to_owned()));
        assert_eq!(at("", "acme"), Ok(String::new()));
        let refused = "argument `workspace` is `other`, and the slug `a` is of `acme`";
        assert_eq!(at("a", "other"), Err(refused.to_owned()));
        assert!(at("/w/acme/u/jo/a", "other").is_err());
        assert_eq!(at("/w/acme/u/jo/a", "acme"), Ok("/w/acme/u/jo/a".to_owned()));
    }
}
