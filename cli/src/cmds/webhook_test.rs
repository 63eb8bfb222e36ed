//! `webhook test`: posts a signed sample to a source's address, the way its sender would come.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use murmur_proto::{
    client::connect_stranger,
    v1::{MakeWebhookSampleRequest, MakeWebhookSampleResponse, Webhook},
};
use serde_json::{Value, json};
use tonic::body::Body;
use tower::ServiceExt as _;

use super::webhook::url_of;
use crate::{
    connect::Target,
    exit::Exit,
    failure::{Context as _, Failure},
    output::{self, Outcome, Output},
    text::clean_line,
};

const TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where the sample says that something happened; empty for a branch of nobody's.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The source's name or id
    name: String,
    /// Repository that the sample names [default: one that the source lists]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REPO")]
    repo: String,
    /// Branch that the sample names: agents that work there are told [default: one of nobody's]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    branch: String,
    #[command(flatten)]
    pub(super) place: super::webhook::Place,
}

pub(super) async fn run(target: &Target, test: Test, output: Output) -> Outcome {
    let Test { name, repo, branch, place } = test;
    let request = MakeWebhookSampleRequest { webhook: name, repo, branch, workspace: place.of(target) };
    let sample = target.control().await?.webhooks.make_webhook_sample(request).await?.into_inner();
    let url = url_of(target, sample.webhook.as_ref().unwrap_or(&Webhook::default()))?;
    let posted = tokio::time::timeout(TIMEOUT, post(target, &url, sample)).await;
    let late = || Failure::new(Exit::Unavailable, format!("{url} did not answer within {} s", TIMEOUT.as_secs()));
    let (status, answer) = posted.map_err(|_| late())??;
    let word = |name: &str| answer[name].as_str().map(clean_line).unwrap_or_default();
    let (outcome, detail, agents) = (word("outcome"), word("detail"), answer["agents"].as_u64().unwrap_or_default());
    if !(200..300).contains(&status) {
        let why = if word("error").is_empty() { String::new() } else { format!(": {}", word("error")) };
        return Err(Failure::new(Exit::Refused, format!("{url} answered {status}{why}")).remedy(
            "Check that the address leads to this control plane, and nothing on the way changes what is posted.",
        ));
    }
    let value = json!({"url": url, "status": status, "outcome": outcome, "detail": detail, "agents": agents});
    output.show(&value, || {
        let told = match agents {
            0 => "no agent works there".to_owned(),
            1 => "1 agent was told".to_owned(),
            count => format!("{count} agents were told"),
        };
        let became = if detail.is_empty() { outcome.clone() } else { format!("{outcome}: {detail}") };
        output::pairs([("url", url.clone()), ("status", status.to_string()), ("outcome", became), ("agents", told)])
    })
}

/// Posts the sample and reads the answer.
async fn post(target: &Target, url: &str, sample: MakeWebhookSampleResponse) -> Result<(u16, Value), Failure> {
    let MakeWebhookSampleResponse { headers, body, webhook: _ } = sample;
    let mut request = http::Request::post(url);
    for header in &headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Body::new(Full::new(body))).context("making the sample")?;
    let ca = target.ca_pem()?;
    // The sample is signed and holds no secret, and a sender may well come over plain HTTP.
    let channel = connect_stranger(url, ca.as_deref()).await?;
    let away = |error: tonic::transport::Error| Failure::new(Exit::Unavailable, format!("posting to {url}: {error}"));
    let (head, body) = channel.oneshot(request).await.map_err(away)?.into_parts();
    let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let bytes =
        read.map_err(|error| Failure::new(Exit::Unavailable, format!("reading the answer of {url}: {error}")))?;
    Ok((head.status.as_u16(), serde_json::from_slice(&bytes.to_bytes()).unwrap_or_default()))
}
