//! Labels of what the operator creates, so that people can select all of one workflow or of one Workspace.

use std::collections::BTreeMap;

/// The workflow, by its name.
pub const WORKFLOW: &str = "workflows.mistral.ai/workflow";
/// The Workspace, by its name.
pub const WORKSPACE: &str = "workflows.mistral.ai/workspace";

/// The labels of an object that belongs to this workflow and this Workspace. A name that cannot be the value of a label
/// (longer than 63 characters, or with a dash or underscore at an end) has no label.
pub fn of(workflow: Option<&str>, workspace: &str) -> BTreeMap<String, String> {
    let named = [(WORKFLOW, workflow), (WORKSPACE, Some(workspace))];
    let fitting = named.into_iter().filter_map(|(label, name)| Some((label, name.filter(|name| fits(name))?)));
    fitting.map(|(label, name)| (label.to_owned(), name.to_owned())).collect()
}

fn fits(value: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let (first, last) = (value.bytes().next(), value.bytes().last());
    value.len() <= 63
        && value.bytes().all(is_inner)
        && [first, last].iter().all(|end| end.is_some_and(|end| end.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_a_label_has_none() {
        let all = of(Some("Send_Invoices"), "default");
        assert_eq!(all[WORKFLOW], "Send_Invoices");
        assert_eq!(all[WORKSPACE], "default");
        for odd in ["", "_internal", "trailing-", &"x".repeat(64), "a b"] {
            assert_eq!(of(Some(odd), "default").get(WORKFLOW), None, "{odd}");
        }
        assert_eq!(of(Some(&"x".repeat(63)), "default").len(), 2);
        assert_eq!(of(None, "default").len(), 1);
    }
}
