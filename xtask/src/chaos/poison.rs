//! Objects that are too deep, too long or too odd. Each may fail, but must not affect any other object.

use serde_json::{Value, json};

use super::dice::Dice;
use super::environment::{DEFAULT, POISONED};
use super::workflows::{DEEP_SCHEMA, ENDING, ODD};
use super::workload::{Planned, Step};

/// The label with an execution's kind of poison.
pub const LABEL: &str = "chaos/poison";
/// A deletion policy that the operator does not know. The CRDs of this test allow it, as those of a later version
/// might.
pub const LATER: &str = "Later";
/// The operator's annotation that a run may exist.
pub const CLAIM: &str = "workflows.mistral.ai/claim";
/// Where kubectl keeps the manifest that it last applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An input that `serde_json` cannot hold, or that is too long for a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// An object of this many levels.
    Deep(usize),
    /// An object with a text of this many bytes.
    Long(usize),
}

impl Input {
    /// As JSON.
    pub fn text(self) -> String {
        match self {
            Self::Deep(levels) => nested(levels, "1"),
            Self::Long(bytes) => json!({ "text": "x".repeat(bytes) }).to_string(),
        }
    }
}

/// An object of this many levels around `inside`.
pub fn nested(levels: usize, inside: &str) -> String {
    format!("{}{inside}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// A deep input of an execution that stays suspended.
    DeepHeld,
    /// Like `DeepHeld`, but deleted.
    DeepHeldDeleted,
    /// A deep input that the API accepts. The execution runs once.
    Deep,
    /// A deep input that the API refuses.
    TooDeep,
    Long,
    /// An annotation that contains deep JSON.
    DeepAnnotation,
    /// An unreadable claim. There may be a run, so none is started.
    OddClaim,
    /// An execution that the operator cannot decode.
    Undecodable,
    /// Like `Undecodable`, but deleted.
    UndecodableDeleted,
    /// An execution that becomes undecodable while its run continues, and is then deleted.
    Spoiled,
    /// A result that no status can hold.
    OddResult,
    /// A result that no status can hold, and that is written to a ConfigMap.
    OddResultKept,
    /// An execution of a Workflow whose schema at the API is deep.
    DeepSchema,
    /// An execution of a Workflow that the operator cannot decode.
    UndecodableWorkflow,
}

impl Poison {
    pub const ALL: [Self; 14] = [
        Self::DeepHeld,
        Self::DeepHeldDeleted,
        Self::Deep,
        Self::TooDeep,
        Self::Long,
        Self::DeepAnnotation,
        Self::OddClaim,
        Self::Undecodable,
        Self::UndecodableDeleted,
        Self::Spoiled,
        Self::OddResult,
        Self::OddResultKept,
        Self::DeepSchema,
        Self::UndecodableWorkflow,
    ];

    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeepHeld => "deep-held",
            Self::DeepHeldDeleted => "deep-held-deleted",
            Self::Deep => "deep",
            Self::TooDeep => "too-deep",
            Self::Long => "long",
            Self::DeepAnnotation => "deep-annotation",
            Self::OddClaim => "odd-claim",
            Self::Undecodable => "undecodable",
            Self::UndecodableDeleted => "undecodable-deleted",
            Self::Spoiled => "spoiled",
            Self::OddResult => "odd-result",
            Self::OddResultKept => "odd-result-kept",
            Self::DeepSchema => "deep-schema",
            Self::UndecodableWorkflow => "undecodable-workflow",
        }
    }

    /// An execution of this kind. Half of them are in the namespace of ordinary executions.
    pub fn planned(self, number: usize, window: u64, dice: &mut Dice) -> Planned {
        let workflow = match self {
            Self::Spoiled => "hang",
            Self::OddResult | Self::OddResultKept => *dice.one_of(&ODD),
            _ => *dice.one_of(&ENDING),
        };
        let spec = json!({ "workflowIdentifier": workflow, "input": { "poison": number } });
        let mut planned = Planned::new(format!("poison-{number}"), spec, dice.ms(0, window));
        planned.namespace = if dice.percent(50) { POISONED } else { DEFAULT };
        planned.labels = json!({ LABEL: self.name() });
        let Planned { name, spec, annotations, input, steps, .. } = &mut planned;
        match self {
            Self::DeepHeld | Self::DeepHeldDeleted => {
                spec["suspend"] = json!(true);
                *input = Some(Input::Deep(odd_depth(dice)));
            }
            Self::Deep => {
                // The API has the same depth limit as `serde_json`, and the input is not the outermost level of a
                // request.
                *input = Some(Input::Deep(usize::try_from(dice.between(50, 119)).unwrap_or_default()));
                if dice.percent(50) {
                    spec["suspend"] = json!(true);
                    steps.push((dice.ms(500, 8000), Step::Suspend(false)));
                }
            }
            Self::TooDeep => {
                let depth = dice.between(200, 4900);
                *input = Some(Input::Deep(usize::try_from(depth).unwrap_or_default()));
            }
            Self::Long => {
                // Only one input has about a megabyte, because every list from the API server contains all inputs.
                let (least, most) = if number < Self::ALL.len() { (800_000, 1_200_000) } else { (40_000, 200_000) };
                let bytes = dice.between(least, most);
                *input = Some(Input::Long(usize::try_from(bytes).unwrap_or_default()));
            }
            Self::DeepAnnotation => *annotations = json!({ LAST_APPLIED: nested(20_000, "1") }),
            Self::OddClaim => *annotations = json!({ CLAIM: nested(5000, "1") }),
            Self::Undecodable | Self::UndecodableDeleted => {
                spec["deletionPolicy"] = json!(LATER);
                if dice.percent(50) {
                    *input = Some(Input::Deep(odd_depth(dice)));
                }
            }
            Self::Spoiled => steps.push((dice.ms(0, 5000), Step::Spoil)),
            Self::OddResult => {}
            Self::OddResultKept => spec["result"] = super::values::result_to(name),
            Self::DeepSchema => *spec = by_reference(DEEP_SCHEMA, number),
            Self::UndecodableWorkflow => {
                *spec = by_reference(name, number);
                spec["startingDeadlineSeconds"] = json!(dice.between(5, 15));
                steps.push((dice.ms(0, 1000), Step::OddWorkflow));
            }
        }
        if matches!(self, Self::DeepHeldDeleted | Self::UndecodableDeleted | Self::Spoiled) {
            planned.steps.push((dice.ms(500, 15_000), Step::Delete));
        }
        planned
    }
}

/// A depth beyond what common decoders read.
fn odd_depth(dice: &mut Dice) -> usize {
    let bounds = *dice.one_of(&[(100, 130), (200, 1000), (1000, 4900)]);
    usize::try_from(dice.between(bounds.0, bounds.1)).unwrap_or_default()
}

fn by_reference(workflow: &str, number: usize) -> Value {
    json!({ "workflowRef": { "name": workflow }, "input": { "poison": number } })
}
