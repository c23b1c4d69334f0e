//! What no test of a cluster is about.

/// The methods of a cluster that knows of nothing, and forgets what it is told.
macro_rules! knows_of_nothing {
    () => {
        fn prove(&self, _: offramp_core::Timestamp) {}

        fn twins(&self) -> Vec<(offramp_core::InstanceId, Vec<offramp_core::NodeName>)> {
            Vec::new()
        }

        fn unidentified(&self) -> Vec<offramp_core::NodeName> {
            Vec::new()
        }

        fn recorded(&self) -> Vec<(offramp_core::InstanceId, offramp_core::Node)> {
            Vec::new()
        }

        fn in_sync(&self) -> bool {
            true
        }

        fn changes(&self, _: &offramp_core::InstanceId) -> tokio::sync::watch::Receiver<u64> {
            tokio::sync::watch::channel(0).1
        }

        fn announce(&self, _: &offramp_core::NodeName, _: $crate::announcement::Announcement) {}
    };
}
pub(crate) use knows_of_nothing;
