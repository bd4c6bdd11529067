//! Whether a live object still is as we applied it. Pure.

use serde_json::Value;

/// True when the live object is as `desired` says, apart from `apiVersion` and
/// `kind`: objects of a list come without them.
#[must_use]
pub fn is_applied(live: &Value, desired: &Value) -> bool {
    desired.as_object().is_some_and(|fields| {
        let typed = ["apiVersion", "kind"];
        let mut ours = fields.iter().filter(|(key, _)| !typed.contains(&key.as_str()));
        ours.all(|(key, value)| contains(&live[key], value))
    })
}

/// True when `live` holds everything that `desired` says. Other managers' fields
/// and the API server's defaults do not count; lists must have the same length.
#[must_use]
pub fn contains(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired.iter().all(|(key, value)| {
            match live.get(key) {
                Some(found) => contains(found, value),
                // The API server leaves out empty maps and lists, and false.
                None => is_nothing(value),
            }
        }),
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len() && live.iter().zip(desired).all(|(l, d)| contains(l, d))
        }
        _ => live == desired,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Found on a real cluster: after a restart, every object was applied in every pass.
    #[test]
    fn an_object_of_a_list_is_not_taken_for_changed() {
        let desired = json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "ClusterIP"}});
        assert!(is_applied(&json!({"spec": {"type": "ClusterIP"}}), &desired));
        assert!(!is_applied(&json!({"spec": {"type": "NodePort"}}), &desired));
    }

    #[test]
    fn only_what_is_ours_counts() {
        let live = json!({"a": 1, "labels": {"ours": "x", "theirs": "y"}, "list": [{"n": 1, "default": true}]});
        assert!(contains(
            &live,
            &json!({"labels": {"ours": "x"}, "list": [{"n": 1}], "none": {}, "off": false})
        ));
        assert!(!contains(&live, &json!({"labels": {"ours": "z"}})));
        assert!(!contains(&live, &json!({"list": []})));
        assert!(!contains(&live, &json!({"gone": 1})));
    }
}
