//! A code host that tells the control plane what happens: GitHub's own example payloads, signed as GitHub signs.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use hyper::Method;
use murmur_crypto::mac::hmac_sha256;
use murmur_proto::v1;
use serde_json::Value;

use crate::{
    network::{Network, WORKSPACE},
    wait,
    web::{self, Page},
};

/// A source of webhooks, with its secret.
pub struct GitHub {
    url: String,
    secret: String,
}

impl GitHub {
    /// Makes a source for some repositories, that lets everybody's words through.
    ///
    /// # Panics
    /// When the control plane refuses it.
    pub async fn of(network: &Network, repos: &str) -> Self {
        let request = v1::CreateWebhookRequest {
            name: "code".into(),
            kind: v1::WebhookKind::Github.into(),
            repos: vec![repos.into()],
            actors: vec!["*".into()],
            workspace: WORKSPACE.into(),
            ..Default::default()
        };
        let made = network.admin().await.webhooks.create_webhook(request).await.unwrap().into_inner();
        let path = made.webhook.unwrap().path;
        Self { url: format!("{}{path}", network.server_url), secret: made.secret }
    }

    /// Delivers once; `None` when nobody answers.
    pub async fn try_deliver(&self, event: &str, body: &Value) -> Option<Page> {
        let body = Bytes::from(body.to_string());
        let signature = format!("sha256={}", hex::encode(hmac_sha256(self.secret.as_bytes(), &[&body])));
        let headers = [
            ("content-type", "application/json"),
            ("x-github-event", event),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("x-hub-signature-256", signature.as_str()),
        ];
        web::try_send(Method::POST, &self.url, &headers, body).await
    }

    /// Delivers until it is taken, as somebody does who delivers again what failed. Says what became of it.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn deliver(&self, event: &str, body: &Value) -> String {
        let page = wait::until("the delivery is taken", || async {
            self.try_deliver(event, body).await.filter(|page| page.status != 503)
        })
        .await;
        assert_eq!(page.status, 202, "{page:?}");
        let answer: Value = serde_json::from_str(&page.body).unwrap();
        answer["outcome"].as_str().unwrap().to_owned()
    }
}

/// One of GitHub's examples of a type of event.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn example(event: &str, index: usize) -> Value {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../server/tests/data/github/{event}.json"));
    let mut all: Vec<Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    all.swap_remove(index)
}

/// Says that an agent works on a branch, as its owner.
///
/// # Panics
/// When the control plane refuses it.
pub async fn works_on(node: &crate::network::Node, slug: &str, repo: &str, branch: &str) {
    let channel = murmur_proto::client::connect_socket(&node.socket).await.unwrap();
    let mut agents = murmur_proto::client::ControlClient::new(channel, murmur_proto::client::Headers::new()).agents;
    let repo =
        v1::Repo { clone_url: format!("https://github.com/{repo}"), branch: branch.to_owned(), ..Default::default() };
    let request = v1::UpdateAgentStatusRequest { slug: slug.to_owned(), repos: vec![repo], ..Default::default() };
    agents.update_agent_status(request).await.unwrap();
}
