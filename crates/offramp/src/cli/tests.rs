use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// The help is a text for people: whoever changes it sees the whole of it in the review.
#[test]
fn help_is_pinned() {
    for words in [&["--help"][..], &["run", "--help"], &["demo", "--help"], &["sandbox", "--help"]] {
        let name = words.join("_").replace("--", "");
        insta::assert_snapshot!(name, help(words));
    }
}

#[test]
fn short_help_is_pinned() {
    insta::assert_snapshot!("short", help(&["-h"]));
}

#[test]
fn no_line_of_help_is_wider_than_the_terminal() {
    for words in [&["--help"][..], &["run", "--help"], &["demo", "--help"], &["sandbox", "--help"]] {
        for line in help(words).lines() {
            assert!(line.chars().count() <= 100, "{words:?}: {line}");
        }
    }
}

#[test]
fn a_mistyped_word_gets_the_nearest_right_one() {
    let check = |words: &[&str], expect: &str| {
        let error = parse(words).unwrap_err();
        let text = error.to_string();
        assert!(error.exit_code() == 2 && text.contains(expect), "{text}");
    };
    check(&["rum"], "'run'");
    check(&["run", "--confg", "x"], "'--config'");
    check(&["run", "--log-format", "jsn"], "'json'");
    check(&["sandbox", "--nodes", "0"], "'--nodes <COUNT>'");
}

#[test]
fn logs_can_be_set_before_and_after_the_command() {
    for words in [["--log-format", "json", "demo"], ["demo", "--log-format", "json"]] {
        assert_eq!(parse(&words).unwrap().log.log_format, Some(LogFormat::Json));
    }
}

fn help(words: &[&str]) -> String {
    let error = Cli::command()
        .term_width(100)
        .try_get_matches_from(std::iter::once(&"offramp").chain(words))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayHelp);
    error.to_string()
}

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"offramp").chain(words))
}
