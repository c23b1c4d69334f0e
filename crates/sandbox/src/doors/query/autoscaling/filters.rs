//! Filters of DescribeAutoScalingGroups (`API_Filter.html`, ASG UG `use-tag-filters-aws-cli.html`): several are joined
//! with AND, the values of one with OR; upper and lower case count, and there are no wildcards.

use std::collections::BTreeMap;

use crate::doors::query::{Form, Refused};

/// One filter with its values.
pub(super) struct Filter<'a> {
    by: By<'a>,
    values: Vec<&'a str>,
}

/// What its values are compared with.
#[derive(Clone, Copy)]
enum By<'a> {
    Key,
    Value,
    ValueOf(&'a str),
}

impl<'a> Filter<'a> {
    /// The filters of a request: `Filters.member.1.Name`, `Filters.member.1.Values.member.1` …
    pub(super) fn all_in(form: &'a Form) -> Result<Vec<Self>, Refused> {
        let mut filters = Vec::new();
        for index in 1.. {
            let Some(name) = form.text(&format!("Filters.member.{index}.Name")) else { break };
            let by = match name {
                "tag-key" => By::Key,
                "tag-value" => By::Value,
                other => match other.strip_prefix("tag:") {
                    Some(key) => By::ValueOf(key),
                    None => return Err(Refused::not_implemented(&format!("the filter {other}"))),
                },
            };
            filters.push(Self { by, values: form.list(&format!("Filters.member.{index}.Values")) });
        }
        Ok(filters)
    }

    /// Whether something with these tags passes.
    pub(super) fn admits(&self, tags: &BTreeMap<String, String>) -> bool {
        let named = |text: &String| self.values.contains(&text.as_str());
        match self.by {
            By::Key => tags.keys().any(named),
            By::Value => tags.values().any(named),
            By::ValueOf(key) => tags.get(key).is_some_and(named),
        }
    }
}
