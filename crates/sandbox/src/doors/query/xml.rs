//! XML as Query services write it: elements with text, and lists of `member`.

use quick_xml::escape::escape;

/// A piece of a document.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    /// An element with text.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.0.push_str(&format!("<{name}>{}</{name}>", escape(text)));
    }

    /// An element with a number.
    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.text(name, &number.to_string());
    }

    /// An element with `true` or `false`.
    pub(super) fn flag(&mut self, name: &str, flag: bool) {
        self.text(name, if flag { "true" } else { "false" });
    }

    /// An element around others.
    pub(super) fn node(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name}>"));
        fill(self);
        self.0.push_str(&format!("</{name}>"));
    }

    /// An element around a piece that is already there.
    pub(super) fn nested(&mut self, name: &str, inner: Self) {
        self.node(name, |node| node.0.push_str(&inner.0));
    }

    /// A list: one `member` for each item.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T),
    ) {
        self.node(name, |list| {
            for item in items {
                list.node("member", |member| fill(member, item));
            }
        });
    }

    /// A list of texts.
    pub(super) fn texts<T: AsRef<str>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        self.list(name, items, |member, item| member.0.push_str(&escape(item.as_ref())));
    }

    /// The document's one element.
    pub(super) fn root(&mut self, name: &str, namespace: &str, fill: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name} xmlns=\"{}\">", escape(namespace)));
        fill(self);
        self.0.push_str(&format!("</{name}>\n"));
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}
