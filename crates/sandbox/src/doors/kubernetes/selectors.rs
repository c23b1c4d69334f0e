//! Which objects a list or a watch is about: `fieldSelector` and `labelSelector`.

use offramp_core::NodeName;

use super::kinds::{Kind, View};
use super::objects::phase_name;
use super::status::Refusal;
use crate::world::cluster::Cluster;

/// Which objects are asked for.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) kind: Kind,
    namespace: Option<String>,
    /// The node of `spec.nodeName=`, so that its pods are found without a look at all the others.
    node: Option<NodeName>,
    fields: Vec<FieldTerm>,
    labels: Vec<LabelTerm>,
}

#[derive(Clone, Debug)]
struct FieldTerm {
    field: Field,
    equal: bool,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    NodeName,
    Phase,
    Unschedulable,
}

#[derive(Clone, Debug)]
enum LabelTerm {
    Equal(String, String),
    /// Also true of an object without the label.
    NotEqual(String, String),
    Exists(String),
    Absent(String),
}

impl Selection {
    /// Reads the selectors of a request.
    pub(super) fn parse(
        kind: Kind,
        namespace: Option<&str>,
        fields: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Self, Refusal> {
        let terms = |text: Option<&str>| -> Vec<String> {
            let terms = text.unwrap_or_default().split(',').map(str::trim).filter(|term| !term.is_empty());
            terms.map(str::to_owned).collect()
        };
        let fields: Vec<FieldTerm> =
            terms(fields).iter().map(|term| FieldTerm::parse(kind, term)).collect::<Result<_, _>>()?;
        let node = fields.iter().find(|term| term.field == Field::NodeName && term.is_lasting());
        Ok(Self {
            kind,
            namespace: namespace.map(str::to_owned),
            node: node.map(|term| NodeName::new(term.value.as_str())),
            fields,
            labels: terms(labels).iter().map(|term| LabelTerm::parse(term)).collect::<Result<_, _>>()?,
        })
    }

    /// The objects of a cluster that are asked for.
    pub(super) fn find<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = View<'a>> {
        let candidates: Box<dyn Iterator<Item = View<'a>> + 'a> = match &self.node {
            Some(node) => Box::new(cluster.pods_of_node(node).map(View::Pod)),
            None => View::all(cluster, self.kind),
        };
        candidates.filter(|view| self.may_match(*view) && self.matches_now(*view))
    }

    /// Whether an object fits in everything that stays the same for as long as it lives.
    pub(super) fn may_match(&self, object: View<'_>) -> bool {
        object.kind() == self.kind
            && self.namespace.as_deref().is_none_or(|namespace| object.namespace() == Some(namespace))
            && self.fields.iter().filter(|term| term.is_lasting()).all(|term| term.matches(object))
    }

    /// Whether an object fits in everything that can change.
    pub(super) fn matches_now(&self, object: View<'_>) -> bool {
        self.fields.iter().filter(|term| !term.is_lasting()).all(|term| term.matches(object))
            && self.labels.iter().all(|term| term.matches(object))
    }

    /// Whether an object can come to match, or cease to, while it lives.
    pub(super) fn can_change(&self) -> bool {
        !self.labels.is_empty() || self.fields.iter().any(|term| !term.is_lasting())
    }
}

impl FieldTerm {
    fn parse(kind: Kind, term: &str) -> Result<Self, Refusal> {
        let (key, equal, value) = match (term.split_once("!="), term.split_once('=')) {
            (Some((key, value)), _) => (key, false, value),
            (None, Some((key, value))) => (key, true, value.strip_prefix('=').unwrap_or(value)),
            (None, None) => return Err(Refusal::bad_request(format!("invalid selector: {term:?}"))),
        };
        let field = match (key, kind) {
            ("metadata.name", _) => Field::Name,
            ("metadata.namespace", Kind::Pod | Kind::Service | Kind::Budget | Kind::DaemonSet) => {
                Field::Namespace
            }
            ("spec.nodeName", Kind::Pod) => Field::NodeName,
            ("status.phase", Kind::Pod) => Field::Phase,
            ("spec.unschedulable", Kind::Node) => Field::Unschedulable,
            _ => {
                let message =
                    format!("{key:?} is not a known field selector: only those of {}", kind.plural());
                return Err(Refusal::bad_request(message));
            }
        };
        Ok(Self { field, equal, value: value.to_owned() })
    }

    fn matches(&self, object: View<'_>) -> bool {
        let stored = match (self.field, object) {
            (Field::Name, _) => object.name(),
            (Field::Namespace, _) => object.namespace().unwrap_or_default(),
            (Field::NodeName, View::Pod(pod)) => pod.node.as_ref().map_or("", |node| node.as_str()),
            (Field::Phase, View::Pod(pod)) => phase_name(pod.phase),
            (Field::Unschedulable, View::Node(node)) => {
                if node.unschedulable {
                    "true"
                } else {
                    "false"
                }
            }
            (Field::NodeName | Field::Phase | Field::Unschedulable, _) => return false,
        };
        (stored == self.value) == self.equal
    }

    /// Names stay, and so does a node once the pod is bound: a pod only ever comes to a node.
    fn is_lasting(&self) -> bool {
        match self.field {
            Field::Name | Field::Namespace => true,
            Field::NodeName => self.equal && !self.value.is_empty(),
            Field::Phase | Field::Unschedulable => false,
        }
    }
}

impl LabelTerm {
    fn parse(term: &str) -> Result<Self, Refusal> {
        if term.contains(['(', ')', '<', '>']) {
            return Err(Refusal::not_implemented(format!(
                "the label selector {term:?} (only =, !=, KEY and !KEY)"
            )));
        }
        let owned = |(key, value): (&str, &str)| (key.trim().to_owned(), value.trim().to_owned());
        if let Some((key, value)) = term.split_once("!=").map(owned) {
            return Ok(Self::NotEqual(key, value));
        }
        if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')).map(owned) {
            return Ok(Self::Equal(key, value));
        }
        Ok(match term.strip_prefix('!') {
            Some(key) => Self::Absent(key.trim().to_owned()),
            None => Self::Exists(term.to_owned()),
        })
    }

    fn matches(&self, object: View<'_>) -> bool {
        let stored = |key: &String| object.labels().and_then(|labels| labels.get(key));
        match self {
            Self::Equal(key, value) => stored(key) == Some(value),
            Self::NotEqual(key, value) => stored(key) != Some(value),
            Self::Exists(key) => stored(key).is_some(),
            Self::Absent(key) => stored(key).is_none(),
        }
    }
}
