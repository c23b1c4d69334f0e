//! Why a command ended without having done its work, and with which exit code.

use std::io::{self, Write};
use std::process::ExitCode;

/// The end of a command that did not work: what to tell the operator, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: u8,
    errors: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// What was asked for or configured cannot be: exit code 2, nothing was touched.
    pub(crate) fn configuration(errors: Vec<String>) -> Self {
        Self { code: 2, errors, hint: None }
    }

    /// Something did not work while running: exit code 1.
    pub(crate) fn runtime(error: impl Into<String>) -> Self {
        Self { code: 1, errors: vec![error.into()], hint: None }
    }

    /// Adds what the operator can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Tells the operator on stderr, one line for each error, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        // Where stderr is closed there is nobody left to tell; the exit code still says it.
        io::stderr().write_all(self.text().as_bytes()).ok();
        ExitCode::from(self.code)
    }

    #[cfg(test)]
    pub(crate) fn errors(&self) -> &[String] {
        &self.errors
    }

    fn text(&self) -> String {
        let errors = self.errors.iter().map(|error| format!("offramp: error: {error}\n"));
        errors.chain(self.hint.iter().map(|hint| format!("hint: {hint}\n"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_each_error_and_the_hint_last() {
        let failure = Failure::configuration(vec!["first".to_owned(), "second".to_owned()]).hint("mend it");
        assert_eq!(failure.text(), "offramp: error: first\nofframp: error: second\nhint: mend it\n");
        assert_eq!(failure.code, 2);
        assert_eq!(Failure::runtime("broken").text(), "offramp: error: broken\n");
        assert_eq!(Failure::runtime("broken").code, 1);
    }
}
