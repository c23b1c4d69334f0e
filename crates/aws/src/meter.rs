//! Every request to AWS is counted, with what came of it and how long it took.

use std::error::Error;
use std::pin::Pin;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use offramp_engine::{Call, CallResult, Metrics};

use crate::fault::Refusal;

/// Sends requests; counts them where somebody wants to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(pub(crate) Option<Metrics>);

impl Meter {
    /// Waits for the answer to one request. Boxed: the SDK's futures are large.
    pub(crate) fn send<T, E>(
        &self,
        call: Call,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
    ) -> Pin<Box<impl Future<Output = Result<T, Refusal>> + Send>>
    where
        T: Send,
        E: ProvideErrorMetadata + Error + 'static,
    {
        Box::pin(async move {
            let request = async { request.await.map_err(|error| Refusal::of(&error)) };
            match &self.0 {
                Some(metrics) => metrics.measure(call, request, result).await,
                None => request.await,
            }
        })
    }
}

fn result<T>(answer: &Result<T, Refusal>) -> CallResult {
    answer.as_ref().map_or_else(|refusal| refusal.reading.result(), |_| CallResult::Done)
}

#[cfg(test)]
mod tests {
    use offramp_core::{GroupName, HookKey, HookName, InstanceId};
    use offramp_engine::{GroupCall, Groups};
    use prometheus::{Registry, TextEncoder};

    use super::*;
    use crate::groups::AutoScaling;
    use crate::replay::{Replay, xml, xml_error};
    use crate::sessions::Access;

    #[tokio::test]
    async fn every_request_is_counted_by_what_came_of_it() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, []).unwrap();
        let late = "No active Lifecycle Action found with instance ID i-0b1c2d3e4f5061728";
        let replay = Replay::of([
            xml("CompleteLifecycleAction", ""),
            xml_error(400, "ValidationError", late),
            xml_error(400, "Throttling", "Rate exceeded"),
            xml_error(403, "AccessDenied", "no"),
            (502, "<html>".to_owned()),
        ])
        .await;
        let access: Access = replay.access().await.measured_by(metrics);
        let port = AutoScaling::new(access.auto_scaling(&"eu-west-1".into()), access.meter(), None);
        let id = InstanceId::parse("i-0b1c2d3e4f5061728").unwrap();
        let key = HookKey { group: GroupName::new("workers"), name: HookName::new("offramp"), token: None };
        for _ in 0..5 {
            port.perform(&[GroupCall::CompleteHook(id.clone(), key.clone())]).await;
        }
        assert_eq!(replay.asked().len(), 5);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for (result, count) in [("done", 2), ("throttled", 1), ("denied", 1), ("retry", 1), ("invalid", 0)] {
            let line = format!(
                r#"offramp_calls_total{{api="autoscaling",operation="CompleteLifecycleAction",result="{result}"}} {count}"#
            );
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        let measured =
            r#"offramp_call_seconds_count{api="autoscaling",operation="CompleteLifecycleAction"} 5"#;
        assert!(text.lines().any(|have| have == measured), "{text}");
    }
}
