//! Room patterns: an exact name, or a prefix that ends in `*`.

/// True when `name` is covered by `pattern`.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// The pattern that decides about `name`: an exact one first, then the longest
/// prefix. List order never matters (operator rule 12).
pub fn best<'a, T>(
    items: &'a [T],
    pattern: impl Fn(&'a T) -> &'a str,
    name: &str,
) -> Option<&'a T> {
    items
        .iter()
        .filter(|item| matches(pattern(item), name))
        .max_by_key(|item| (!pattern(item).ends_with('*'), pattern(item).len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_pattern_wins_and_exact_beats_prefix() {
        let patterns = ["*", "chat:*", "chat:vip:*", "chat:vip:1"];
        let pick = |name: &str| best(&patterns, |p| p, name).copied();
        assert_eq!(pick("news"), Some("*"));
        assert_eq!(pick("chat:1"), Some("chat:*"));
        assert_eq!(pick("chat:vip:2"), Some("chat:vip:*"));
        assert_eq!(pick("chat:vip:1"), Some("chat:vip:1"));
        assert_eq!(best(&["chat:*"], |p| p, "news"), None);
    }

    proptest! {
        #[test]
        fn list_order_never_matters(mut patterns in prop::collection::vec("[ab]{0,3}\\*?", 1..6), name in "[ab]{0,4}") {
            patterns.sort();
            patterns.dedup();
            let forward = best(&patterns, |p| p.as_str(), &name).cloned();
            patterns.reverse();
            prop_assert_eq!(forward, best(&patterns, |p| p.as_str(), &name).cloned());
        }
    }
}
