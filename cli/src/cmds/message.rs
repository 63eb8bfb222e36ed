//! `message MSG_ID`: how the delivery of a sent message stands, now or when it got somewhere.

use std::time::Duration;

use murmur_proto::node::v1::{Delivery, GetDeliveryRequest};
use serde_json::{Value, json};

use super::wait::{Wait, WaitFor};
use crate::{
    args::Speaker,
    connect::Target,
    duration,
    output::{self, Outcome, Output},
    time, view,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The id that `send` or `request` answered
    msg_id: String,
    #[command(flatten)]
    speaker: Speaker,
    /// Return only when the message got this far
    #[arg(long, value_name = "STATE")]
    wait: Option<WaitFor>,
    /// How long to wait with --wait
    #[arg(long, value_parser = duration::parse, default_value = "30s", value_name = "TIME", requires = "wait")]
    timeout: Duration,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { msg_id, speaker, wait, timeout } = args;
    let mut node = target.node_as(&speaker).await?;
    let deliveries = match wait {
        Some(state) => Wait { target, speaker: &speaker, msg_id: &msg_id, state, timeout }.until(node).await?,
        None => {
            let request = GetDeliveryRequest { agent: speaker.agent.clone(), msg_id: msg_id.clone() };
            node.messages.get_delivery(request).await?.into_inner().deliveries
        }
    };
    let value = json!({
        "msg_id": msg_id,
        "deliveries": deliveries.iter().map(view::delivery_json).collect::<Vec<Value>>(),
    });
    output.show(&value, || {
        output::table(&["TO", "STATE", "CODE", "TRIES", "CREATED", "DELIVERED", "READ"], deliveries.iter().map(row))
    })
}

fn row(delivery: &Delivery) -> Vec<String> {
    let stale = if delivery.stale_prekey { " (old key: the recipient was long away)" } else { "" };
    vec![
        delivery.to.clone(),
        format!("{}{stale}", view::state(delivery.state())),
        delivery.code.clone(),
        delivery.publish_tries.to_string(),
        time::ago(delivery.created_time.as_ref()),
        time::ago(delivery.delivered_time.as_ref()),
        time::ago(delivery.read_time.as_ref()),
    ]
}
