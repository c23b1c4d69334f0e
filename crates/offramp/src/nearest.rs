//! "Did you mean": the nearest right name.

/// The name that was probably meant: at most a third of its letters differ.
pub(crate) fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&typed, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// ` did you mean "NAME"?` after a semicolon, or nothing where no name is near.
pub(crate) fn did_you_mean<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, names).map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["region", "endpoint_url"];
        assert_eq!(nearest("regoin", names), Some("region"));
        assert_eq!(nearest("Region", names), Some("region"));
        assert_eq!(nearest("endpoint-url", names), Some("endpoint_url"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(did_you_mean("regio", names), "; did you mean \"region\"?");
        assert_eq!(did_you_mean("colour", names), "");
    }
}
