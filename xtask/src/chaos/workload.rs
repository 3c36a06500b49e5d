//! What happens in one go of the chaos: everything that a seed decides.

use std::time::Duration;

use serde_json::{Value, json};

use super::dice::Dice;
use super::faults::{self, Phase};
use super::place::{APART, DEFAULT};
use super::poison::{Input, Poison};
use super::refusals::Refusal;
use super::values;
use super::workflows::{ENDING, REFERENCED, STOPPED, UNKNOWN};

/// In so many milliseconds everything happens to the processes once. A leader that is killed or stopped is followed by
/// the other after ten seconds, one that ends soon.
const ROUND: u64 = 46_000;
/// One object in so many executions is poison.
const POISON_EVERY: usize = 20;
/// Writes to one in so many executions are refused.
const REFUSAL_EVERY: usize = 50;

/// The plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The resources and what is done to them.
    pub executions: Vec<Planned>,
    /// The faults of the simulated API, one mix after the other.
    pub phases: Vec<Phase>,
    /// What happens to the processes, in the order of the times.
    pub disturbances: Vec<(Duration, Disturbance)>,
    /// For how long resources are created and faults are on.
    pub window: Duration,
}

/// One resource, by its name, and its life.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Name of the resource, which none has in another namespace.
    pub name: String,
    /// Its namespace.
    pub namespace: &'static str,
    /// Its labels as it is created.
    pub labels: Value,
    /// Its annotations as it is created.
    pub annotations: Value,
    /// Its spec as it is created.
    pub spec: Value,
    /// The input, if that is not one for the spec here.
    pub input: Option<Input>,
    /// When it is created.
    pub at: Duration,
    /// What is done to it afterwards, each after so long a wait.
    pub steps: Vec<(Duration, Step)>,
}

impl Planned {
    /// An ordinary one, to which nothing more is done.
    pub fn new(name: String, spec: Value, at: Duration) -> Self {
        let (labels, annotations) = (json!({}), json!({}));
        Self { name, namespace: DEFAULT, labels, annotations, spec, input: None, at, steps: Vec::new() }
    }
}

/// A claim that was refused, from before the one that is there.
pub const OLDER: &str = "older";
/// The claim of another resource.
pub const ANOTHERS: &str = "another's";

/// What somebody does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sets `spec.suspend`.
    Suspend(bool),
    /// Deletes it.
    Delete,
    /// Waits until it is gone, and creates it again under the same name.
    CreateAgain,
    /// Once it has an execution id in its status, replaces it by a manifest without annotations and finalizers. (Before
    /// that, only the claim says that there may be a run: who removes it then is on his own.)
    Replace,
    /// Once it has an execution id in its status, applies a claim over its own that is older and refused, or another
    /// resource's, as whoever applies an export or a copy does.
    Reapply(&'static str),
    /// Empties its status, as a restore from a backup does.
    WipeStatus,
    /// Sets `spec.shutdown`.
    Shutdown(&'static str),
    /// Creates the ConfigMap that its input comes from.
    Provide,
    /// Makes the API server refuse these writes of the operator.
    Refuse(&'static str),
    /// Once it has started, makes the API server refuse to let the operator take its finalizer off.
    RefuseRelease,
    /// Ends all refusals.
    Allow,
    /// Once it has started, makes it one that the operator cannot decode.
    Spoil,
    /// Creates a Workflow of its name that the operator cannot decode.
    OddWorkflow,
}

/// What happens to processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// SIGKILL to the operator that leads.
    KillLeader,
    /// SIGKILL to the one that stands by.
    KillStandby,
    /// SIGSTOP to the operator that leads, and SIGCONT after so long.
    StopLeader(Duration),
    /// SIGTERM to the operator that leads.
    EndLeader,
    /// SIGKILL to the API server, which is started again after so long.
    RestartApiServer(Duration),
    /// A third operator acts for so long, without asking the Lease, and is killed.
    SecondLeader(Duration),
}

impl Disturbance {
    /// All kinds, as they are counted.
    pub const KINDS: [&str; 6] = [
        "leader killed",
        "standby killed",
        "leader stopped and continued",
        "leader ended",
        "API server killed",
        "second leader killed",
    ];

    /// What is counted so.
    pub fn of_kind(kind: &str) -> Option<Self> {
        let some = Duration::from_secs(12);
        let all = [
            Self::KillLeader,
            Self::KillStandby,
            Self::StopLeader(some),
            Self::EndLeader,
            Self::RestartApiServer(Duration::from_secs(1)),
            Self::SecondLeader(some),
        ];
        all.into_iter().find(|it| it.kind() == kind)
    }

    /// As it is counted.
    pub fn kind(self) -> &'static str {
        let [killed, standby, stopped, ended, server, second] = Self::KINDS;
        match self {
            Self::KillLeader => killed,
            Self::KillStandby => standby,
            Self::StopLeader(_) => stopped,
            Self::EndLeader => ended,
            Self::RestartApiServer(_) => server,
            Self::SecondLeader(_) => second,
        }
    }
}

/// What a resource's life is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    Plain,
    Explicit,
    ByReference,
    Resumed,
    Suspended,
    SuspendedAndDeleted,
    Toggled,
    Deleted(&'static str),
    RecreatedExplicit,
    RecreatedDerived,
    Replaced,
    Reapplied(&'static str),
    StatusWiped,
    Twins,
    Shutdown(&'static str),
    /// Of one that is suspended, always.
    ShutdownHeld(&'static str),
    /// It comes with it.
    ShutdownAtOnce(&'static str),
    ActiveDeadline,
    StartingDeadline,
    /// It is suspended, always.
    StartingDeadlineHeld,
    /// Of a workflow that does not exist.
    StartingDeadlineUnknown,
    TimeToLive,
    Values,
}

/// Each story, and how often it is told among the others.
const STORIES: [(Story, u64); 29] = [
    (Story::Plain, 30),
    (Story::Explicit, 10),
    (Story::ByReference, 8),
    (Story::Resumed, 5),
    (Story::Suspended, 2),
    (Story::SuspendedAndDeleted, 3),
    (Story::Toggled, 4),
    (Story::Deleted("Cancel"), 8),
    (Story::Deleted("Terminate"), 5),
    (Story::Deleted("Orphan"), 4),
    (Story::RecreatedExplicit, 5),
    (Story::RecreatedDerived, 4),
    (Story::Replaced, 5),
    (Story::Reapplied(OLDER), 4),
    (Story::Reapplied(ANOTHERS), 4),
    (Story::StatusWiped, 5),
    (Story::Twins, 4),
    (Story::Shutdown("Cancel"), 7),
    (Story::Shutdown("Terminate"), 5),
    (Story::ShutdownHeld("Cancel"), 2),
    (Story::ShutdownHeld("Terminate"), 2),
    (Story::ShutdownAtOnce("Cancel"), 1),
    (Story::ShutdownAtOnce("Terminate"), 1),
    (Story::ActiveDeadline, 6),
    (Story::StartingDeadline, 6),
    (Story::StartingDeadlineHeld, 2),
    (Story::StartingDeadlineUnknown, 2),
    (Story::TimeToLive, 7),
    (Story::Values, 8),
];

impl Plan {
    /// What this seed makes of so many executions.
    pub fn new(seed: u64, executions: usize) -> Self {
        let mut dice = Dice::new(seed);
        let window = Duration::from_millis(ROUND.max(executions as u64 * 180));
        let disturbances = disturbances(&mut dice, window);
        let phases = faults::phases(&mut dice, window);
        let mut plan = Self { executions: Vec::new(), phases, disturbances, window };
        // Each story at least once, if there is room for it.
        let mut stories: Vec<Story> = STORIES.iter().map(|(story, _)| *story).collect();
        let weighted: Vec<Story> = STORIES
            .iter()
            .flat_map(|(story, weight)| std::iter::repeat_n(*story, usize::try_from(*weight).unwrap_or_default()))
            .collect();
        while stories.len() < executions {
            stories.push(*dice.one_of(&weighted));
        }
        for story in stories {
            if plan.executions.len() < executions {
                plan.tell(story, &mut dice);
            }
        }
        plan.spoil(executions, &mut dice);
        plan.executions.sort_by_key(|planned| planned.at);
        plan
    }

    /// Adds poison and refusals to so many executions: each kind at least once.
    fn spoil(&mut self, executions: usize, dice: &mut Dice) {
        let window = self.milliseconds();
        for number in 0..Poison::ALL.len().max(executions / POISON_EVERY) {
            let kind = Poison::ALL.get(number).copied().unwrap_or_else(|| *dice.one_of(&Poison::ALL));
            self.executions.push(kind.planned(number, window, dice));
        }
        for number in 0..Refusal::ALL.len().max(executions / REFUSAL_EVERY) {
            let kind = Refusal::ALL.get(number).copied().unwrap_or_else(|| *dice.one_of(&Refusal::ALL));
            self.executions.push(kind.planned(number, window, dice));
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&mut self, story: Story, dice: &mut Dice) {
        use Step::{CreateAgain, Delete, Provide, Reapply, Replace, Shutdown, Suspend, WipeStatus};
        let number = self.executions.len();
        let name = format!("run-{number}");
        let window = self.milliseconds();
        let mut at = dice.ms(0, window);
        // The parts of inputs are in the other namespace.
        let namespace = if story != Story::Values && dice.percent(33) { APART } else { DEFAULT };
        let workflow = match story {
            Story::Deleted(_) | Story::Shutdown(_) | Story::ActiveDeadline => *dice.one_of(&STOPPED),
            Story::StartingDeadlineUnknown => UNKNOWN,
            Story::ByReference => *dice.one_of(&REFERENCED),
            _ => *dice.one_of(&ENDING),
        };
        let mut spec = json!({ "input": { "number": number, "token": dice.below(u64::MAX).to_string() } });
        if story == Story::ByReference {
            spec["workflowRef"] = json!({ "name": workflow });
        } else {
            spec["workflowIdentifier"] = json!(workflow);
        }
        if matches!(story, Story::Explicit | Story::RecreatedExplicit | Story::Twins)
            || (matches!(story, Story::Deleted("Cancel" | "Terminate")) && dice.percent(25))
        {
            spec["executionId"] = json!(format!("explicit-{number}"));
        }
        if matches!(story, Story::Shutdown(_) | Story::ActiveDeadline) {
            spec["terminationGracePeriodSeconds"] = json!(*dice.one_of(&[2, 10]));
        }
        if matches!(story, Story::ShutdownHeld(_) | Story::StartingDeadlineHeld) {
            spec["suspend"] = json!(true);
        }
        let steps = match story {
            Story::Plain | Story::Explicit | Story::ByReference => Vec::new(),
            Story::Resumed => {
                spec["suspend"] = json!(true);
                vec![(dice.ms(500, 8000), Suspend(false))]
            }
            Story::Suspended => {
                spec["suspend"] = json!(true);
                Vec::new()
            }
            Story::SuspendedAndDeleted => {
                spec["suspend"] = json!(true);
                vec![(dice.ms(500, 8000), Delete)]
            }
            Story::Toggled => vec![(dice.ms(0, 1500), Suspend(true)), (dice.ms(500, 6000), Suspend(false))],
            Story::Deleted(policy) => {
                spec["deletionPolicy"] = json!(policy);
                vec![(dice.ms(0, 9000), Delete)]
            }
            Story::RecreatedExplicit | Story::RecreatedDerived => {
                // It may take long until the first is gone, so that this one begins early.
                at /= 2;
                vec![(dice.ms(0, 9000), Delete), (dice.ms(0, 500), CreateAgain)]
            }
            Story::Replaced => vec![(dice.ms(0, 6000), Replace)],
            Story::Reapplied(claim) => {
                let mut steps = vec![(dice.ms(0, 6000), Reapply(claim))];
                if dice.percent(30) {
                    steps.push((dice.ms(0, 3000), Delete));
                }
                steps
            }
            Story::StatusWiped => vec![(dice.ms(500, 9000), WipeStatus)],
            Story::Twins => {
                at = self.with_one_leader(at, window);
                let twin = format!("{name}-twin");
                let at = at + dice.ms(0, 1500);
                self.executions.push(Planned { namespace, ..Planned::new(twin, spec.clone(), at) });
                Vec::new()
            }
            Story::Shutdown(how) => {
                let mut steps = vec![(dice.ms(0, 9000), Shutdown(how))];
                if how == "Cancel" && dice.percent(25) {
                    steps.push((dice.ms(0, 3000), Shutdown("Terminate")));
                }
                steps
            }
            Story::ShutdownHeld(how) => vec![(dice.ms(0, 8000), Shutdown(how))],
            Story::ShutdownAtOnce(how) => {
                spec["shutdown"] = json!(how);
                Vec::new()
            }
            Story::ActiveDeadline => {
                spec["activeDeadlineSeconds"] = json!(dice.between(1, 7));
                Vec::new()
            }
            Story::StartingDeadline | Story::StartingDeadlineHeld | Story::StartingDeadlineUnknown => {
                spec["startingDeadlineSeconds"] = json!(dice.between(1, 7));
                Vec::new()
            }
            Story::TimeToLive => {
                spec["ttlSecondsAfterFinished"] = json!(dice.between(0, 9));
                Vec::new()
            }
            Story::Values => {
                spec["inputFrom"] = values::input_from(&name);
                spec["result"] = values::result_to(&name);
                vec![(dice.ms(0, 3000), Provide)]
            }
        };
        self.executions.push(Planned { namespace, steps, ..Planned::new(name, spec, at) });
    }

    /// A time near this one at which no second leader is planned. Two resources of one explicit id are kept apart within
    /// one process only: a claim is a note on one resource. In a long go starts wait for minutes, so that second leaders
    /// come in its second half and twins long before that.
    fn with_one_leader(&self, at: Duration, window: u64) -> Duration {
        if is_long(window) {
            return at.mul_f64(TWINS_UNTIL);
        }
        let margin = Duration::from_secs(3);
        self.disturbances.iter().fold(at, |at, (begin, disturbance)| match disturbance {
            Disturbance::SecondLeader(lasts) if at + margin > *begin && at < *begin + *lasts + margin => {
                begin.saturating_sub(margin)
            }
            _ => at,
        })
    }
}

/// The part of a long go in which twins come.
const TWINS_UNTIL: f64 = 0.25;

/// Whether a go of so many milliseconds has times of quiet.
fn is_long(window: u64) -> bool {
    window >= 4 * ROUND
}

/// The same kinds in every round, at other moments.
fn disturbances(dice: &mut Dice, window: Duration) -> Vec<(Duration, Disturbance)> {
    let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    // A long go has a time of quiet after each, or too little would be under way when the next begins.
    let stride = if is_long(window) { 2 * ROUND } else { ROUND };
    let mut all = Vec::new();
    for round in 0..window.div_ceil(stride) {
        let mut at = |start: u64, end: u64| Duration::from_millis(round * stride) + dice.ms(start, end);
        all.push((at(1500, 4000), Disturbance::RestartApiServer(Duration::from_secs(1))));
        all.push((at(14_000, 18_000), Disturbance::KillStandby));
        let second = at(12_000, 14_000);
        if !is_long(window) || second.as_millis() >= u128::from(window / 2) {
            all.push((second, Disturbance::SecondLeader(Duration::from_secs(20))));
        }
        all.push((at(28_000, 30_000), Disturbance::EndLeader));
        all.push((at(32_500, 33_500), Disturbance::StopLeader(Duration::from_secs(12))));
        all.push((at(44_500, 45_900), Disturbance::KillLeader));
    }
    all.retain(|(at, _)| *at < Duration::from_millis(window));
    all.sort_by_key(|(at, _)| *at);
    all
}

#[cfg(test)]
mod tests {
    use super::super::poison;
    use super::*;

    #[test]
    fn in_a_long_go_twins_have_started_long_before_a_second_leader_acts() {
        let plan = Plan::new(7, 5000);
        let twins = plan.executions.iter().filter(|planned| planned.name.ends_with("-twin"));
        let last = twins.map(|planned| planned.at).max().unwrap();
        let seconds = plan.disturbances.iter().filter(|(_, what)| matches!(what, Disturbance::SecondLeader(_)));
        let first = seconds.map(|(at, _)| *at).min().unwrap();
        assert!(first > last + plan.window / 5, "{last:?} and {first:?}");
    }

    #[test]
    fn a_seed_says_everything_and_another_says_something_else() {
        let plan = |seed| format!("{:?}", Plan::new(seed, 200));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn the_plan_has_as_many_executions_as_were_asked_for_and_each_name_once() {
        for seed in 0..50 {
            let plan = Plan::new(seed, 60);
            let mut names: Vec<&str> = plan.executions.iter().map(|planned| planned.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), plan.executions.len());
            let ordinary = names.iter().filter(|name| name.starts_with("run-")).count();
            assert!((60..=61).contains(&ordinary), "{ordinary}");
        }
    }

    #[test]
    fn even_the_shortest_plan_has_every_kind_of_step_and_disturbance() {
        for seed in 0..50 {
            let plan = Plan::new(seed, 60);
            let steps: Vec<Step> = plan.executions.iter().flat_map(|planned| &planned.steps).map(|it| it.1).collect();
            let wanted = [
                Step::Suspend(true),
                Step::Delete,
                Step::CreateAgain,
                Step::Replace,
                Step::Reapply(OLDER),
                Step::Reapply(ANOTHERS),
                Step::WipeStatus,
                Step::Shutdown("Cancel"),
                Step::Shutdown("Terminate"),
                Step::Provide,
                Step::Refuse("claim"),
                Step::Refuse("status"),
                Step::RefuseRelease,
                Step::Allow,
                Step::Spoil,
                Step::OddWorkflow,
            ];
            for step in wanted {
                assert!(steps.contains(&step), "seed {seed} has no {step:?}");
            }
            for kind in Poison::ALL {
                let is_it = |planned: &Planned| planned.labels[poison::LABEL] == kind.name();
                assert!(plan.executions.iter().any(is_it), "seed {seed} has no {kind:?}");
            }
            for field in ["activeDeadlineSeconds", "startingDeadlineSeconds", "ttlSecondsAfterFinished", "shutdown"] {
                assert!(plan.executions.iter().any(|it| !it.spec[field].is_null()), "seed {seed} has no {field}");
            }
            for kind in Disturbance::KINDS {
                assert!(plan.disturbances.iter().any(|(_, it)| it.kind() == kind), "seed {seed} has no {kind}");
            }
        }
    }
}
