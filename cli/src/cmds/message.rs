//! `message MSG_ID`: how the delivery of a sent message stands.

use murmur_proto::node::v1::{Delivery, GetDeliveryRequest};
use serde_json::{Value, json};

use crate::{
    args::Speaker,
    connect::Target,
    output::{self, Outcome, Output},
    time, view,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The id that `send` or `request` answered
    msg_id: String,
    #[command(flatten)]
    speaker: Speaker,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { msg_id, speaker } = args;
    let request = GetDeliveryRequest { agent: speaker.agent.clone(), msg_id };
    let answer = target.node_as(&speaker).await?.messages.get_delivery(request).await?.into_inner();
    let value = json!({
        "msg_id": answer.msg_id,
        "deliveries": answer.deliveries.iter().map(view::delivery_json).collect::<Vec<Value>>(),
    });
    output.show(&value, || {
        output::table(
            &["TO", "STATE", "CODE", "TRIES", "CREATED", "DELIVERED", "READ"],
            answer.deliveries.iter().map(row),
        )
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
