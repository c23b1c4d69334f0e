//! NotificationMetadata: free text of a lifecycle hook, in its event and in DescribeLifecycleHooks alike. The
//! one place that reads it.

use offramp_core::ClusterName;
use serde::Deserialize;

use crate::field::is_name;
use crate::json::{Text, read};

/// `NotificationMetadata` where it is a JSON object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow)]
    cluster: Text<'a>,
    #[serde(borrow, rename = "clusterName")]
    cluster_name: Text<'a>,
    #[serde(borrow, rename = "cluster_name")]
    cluster_name_snake: Text<'a>,
}

/// The cluster that a hook's free text names: the field of a JSON object, or the only word. Several words
/// are somebody's note.
pub fn cluster_hint(metadata: &str) -> Option<ClusterName> {
    let metadata = metadata.trim();
    let fields: Metadata<'_>;
    let name = if metadata.starts_with('{') {
        fields = read(metadata).ok()?;
        let mut named = [&fields.cluster, &fields.cluster_name, &fields.cluster_name_snake].into_iter();
        named.find_map(|field| field.get())?.trim()
    } else {
        metadata
    };
    let word = !name.contains(|c: char| c.is_whitespace() || "\"'`{}[]".contains(c));
    (word && is_name(name)).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_a_field_or_the_only_word() {
        let check = |metadata: &str, expect: Option<&str>| {
            assert_eq!(cluster_hint(metadata).as_ref().map(ClusterName::as_str), expect, "{metadata}");
        };
        check("blue", Some("blue"));
        check("  blue\n", Some("blue"));
        check("team/blue-1.eu_west", Some("team/blue-1.eu_west"));
        check(r#"{"cluster":"blue"}"#, Some("blue"));
        check(r#"{"clusterName":"blue"}"#, Some("blue"));
        check(r#"{"cluster_name":"blue"}"#, Some("blue"));
        check(r#"{"cluster_name":"red","cluster":" blue ","drainTimeout":600}"#, Some("blue"));
        check(r#"{"cluster_name":"red","clusterName":"green","cluster":"blue"}"#, Some("blue"));
        check(r#"{"cluster_name":"red","clusterName":"blue"}"#, Some("blue"));
        check(r#"{"cluster":null,"clusterName":"blue"}"#, Some("blue"));
        check(r#"{"cluster":["red"],"clusterName":"blue"}"#, Some("blue"));
        check(r#" { "cluster" : "bl\u0075e" } "#, Some("blue"));
        check(r#"{"cluster":""}"#, None);
        check(r#"{"cluster":"two words"}"#, None);
        check(r#"{"cluster":"blue\u0000"}"#, None);
        check(r#"{"cluster":{"name":"blue"}}"#, None);
        check(r#"{"cluster":"blue""#, None);
        check(r#"{"owner":"payments"}"#, None);
        check(r#"["blue"]"#, None);
        check(r#""blue""#, None);
        check("{blue}", None);
        check("owned by team payments; page before 08:00", None);
        check("cluster: blue", None);
        check("", None);
        check("   ", None);
        check(&"b".repeat(255), Some("b".repeat(255)).as_deref());
        check(&"b".repeat(256), None);
    }
}
