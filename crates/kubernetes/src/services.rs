//! Services with `externalTrafficPolicy: Local`: a request that reaches a node for one of them is
//! served by a pod of that very node or not at all.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// What the view keeps of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchedService {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The labels of its pods, where its traffic stays on the node. Any other Service has nothing here,
    /// so that one which stops to be Local is forgotten.
    pub(crate) local: Option<BTreeMap<String, String>>,
}

/// Trims a Service.
pub(crate) fn read(service: Service) -> Option<WatchedService> {
    let spec = service.spec.unwrap_or_default();
    let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
    Some(WatchedService {
        namespace: service.metadata.namespace?,
        name: service.metadata.name?,
        // A Service without selector has endpoints that somebody writes by hand: which pods, if any,
        // its labels do not tell.
        local: spec.selector.filter(|selector| is_local && !selector.is_empty()),
    })
}
