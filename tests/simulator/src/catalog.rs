//! The workflows of a workspace and their registrations.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jsonschema::Validator;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::Error;
use crate::deployments::Deployments;
use crate::run::Worker;
use crate::spec::{Behaviour, DeploymentSpec, WorkflowSpec};
use crate::switches::Reregistration;
use crate::wire::Definition;

const MAX_NAME: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct Catalog {
    workflows: BTreeMap<Uuid, Workflow>,
    names: HashMap<String, Uuid>,
    pub(crate) deployments: Deployments,
}

impl Catalog {
    /// All workflows, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Workflow> {
        self.workflows.values()
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<&Workflow> {
        self.workflows.get(&id)
    }

    /// The workflow of this id or name. If the text is both, the id wins.
    pub(crate) fn resolve(&self, identifier: &str) -> Option<&Workflow> {
        self.by_id(self.id_of(identifier)?)
    }

    /// Like `resolve`, but mutable.
    pub(crate) fn resolve_mut(&mut self, identifier: &str) -> Option<&mut Workflow> {
        self.workflows.get_mut(&self.id_of(identifier)?)
    }

    /// The registration of this id, with its workflow.
    pub(crate) fn registration(&self, id: Uuid) -> Option<(&Workflow, &Registration)> {
        self.iter().find_map(|workflow| {
            let mut registrations = workflow.registrations.iter();
            Some((workflow, registrations.find(|it| it.id == id)?))
        })
    }

    /// Registers a workflow, or a new version of an existing one, as a worker does on start.
    pub(crate) fn register(&mut self, spec: WorkflowSpec, rule: Reregistration) -> Result<&Workflow, Error> {
        check_name(&spec.name)?;
        let mut spec = spec.complete();
        let validator = compile(spec.input_schema.as_ref())?;
        check_json(spec.raw_input_schema.as_deref())?;
        let known = self.names.get(&spec.name).copied();
        let id = known.or(spec.id).unwrap_or_else(Uuid::now_v7);
        if known.is_none() && self.workflows.contains_key(&id) {
            return Err(Error::Workflow(format!("id {id} is taken")));
        }
        self.names.insert(spec.name.clone(), id);
        self.deployments.take_in(spec.deployments.iter().flatten());
        let entry = self.workflows.entry(id);
        let workflow = entry.or_insert_with(|| Workflow::new(id, &spec.name));
        match rule {
            Reregistration::Keep if workflow.updated_by_client => spec.leave_display_fields(),
            Reregistration::Keep => {}
            Reregistration::Overwrite => spec.reset_display_fields(),
        }
        workflow.apply(spec, validator);
        Ok(workflow)
    }

    /// Changes the fields of an existing workflow that `spec` sets. Returns whether the workflow exists.
    pub(crate) fn edit(&mut self, spec: WorkflowSpec) -> Result<bool, Error> {
        let validator = compile(spec.input_schema.as_ref())?;
        check_json(spec.raw_input_schema.as_deref())?;
        let id = self.names.get(&spec.name);
        let Some(workflow) = id.and_then(|id| self.workflows.get_mut(id)) else {
            return Ok(false);
        };
        self.deployments.take_in(spec.deployments.iter().flatten());
        workflow.apply(spec, validator);
        Ok(true)
    }

    /// Removes a workflow. Returns whether it existed.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let id = self.names.remove(name);
        id.and_then(|id| self.workflows.remove(&id)).is_some()
    }

    fn id_of(&self, identifier: &str) -> Option<Uuid> {
        let id = Uuid::parse_str(identifier).ok();
        id.filter(|id| self.workflows.contains_key(id)).or_else(|| self.names.get(identifier).copied())
    }
}

#[derive(Debug)]
pub(crate) struct Workflow {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) tags: Vec<String>,
    pub(crate) archived: bool,
    pub(crate) available_in_chat_assistant: bool,
    pub(crate) is_technical: bool,
    pub(crate) shared_namespace: Option<String>,
    pub(crate) definition: Definition,
    pub(crate) registrations: Vec<Registration>,
    pub(crate) behaviour: Behaviour,
    /// Whether a client has updated, archived or unarchived the workflow.
    pub(crate) updated_by_client: bool,
    validator: Option<Validator>,
}

/// A deployment's registration of a workflow.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) id: Uuid,
    pub(crate) deployment: String,
    pub(crate) active: bool,
}

/// Which worker would serve an execution.
pub(crate) enum Placement {
    Worker(Worker),
    /// A deployment serves the workflow, but no worker is alive.
    Nobody,
    /// Several deployments serve the workflow, and the client named none.
    Ambiguous(Vec<String>),
    /// The client named a deployment that does not serve the workflow.
    UnknownDeployment,
}

impl Workflow {
    fn new(id: Uuid, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            display_name: name.to_owned(),
            description: String::new(),
            tags: Vec::new(),
            archived: false,
            available_in_chat_assistant: false,
            is_technical: false,
            shared_namespace: None,
            definition: Definition::default(),
            registrations: Vec::new(),
            behaviour: Behaviour::default(),
            updated_by_client: false,
            validator: None,
        }
    }

    /// Whether a live worker serves the workflow.
    pub(crate) fn is_active(&self) -> bool {
        self.registrations.iter().any(|it| it.active)
    }

    /// The execution timeout.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::try_from_secs_f64(self.definition.execution_timeout).unwrap_or(Duration::MAX)
    }

    /// The reason why the input violates the schema, if it does.
    pub(crate) fn reject_input(&self, input: &Value) -> Option<String> {
        let error = self.validator.as_ref()?.validate(input).err()?;
        Some(error.to_string())
    }

    /// Archives or unarchives. Returns whether that changed anything.
    pub(crate) fn archive(&mut self, archived: bool) -> bool {
        self.updated_by_client = true;
        std::mem::replace(&mut self.archived, archived) != archived
    }

    /// Finds a worker for an execution.
    pub(crate) fn place(&self, deployment: Option<&str>) -> Placement {
        let serves = |it: &&Registration| deployment.is_none_or(|name| it.deployment == name);
        let candidates: Vec<_> = self.registrations.iter().filter(serves).collect();
        if candidates.is_empty() && deployment.is_some() {
            return Placement::UnknownDeployment;
        }
        let alive: Vec<_> = candidates.into_iter().filter(|it| it.active).collect();
        match alive.as_slice() {
            [] => Placement::Nobody,
            [one] => Placement::Worker(Worker { deployment: one.deployment.clone(), registration_id: one.id }),
            several => {
                let mut names: Vec<_> = several.iter().map(|it| it.deployment.clone()).collect();
                names.sort();
                Placement::Ambiguous(names)
            }
        }
    }

    /// Applies the fields that `spec` sets. `validator` belongs to its input schema.
    fn apply(&mut self, spec: WorkflowSpec, validator: Option<Validator>) {
        if validator.is_some() {
            self.validator = validator;
        }
        let shown = spec.input_schema.as_ref().map(ToString::to_string);
        let schema = spec.raw_input_schema.or(shown).and_then(|text| RawValue::from_string(text).ok());
        let definition = &mut self.definition;
        set(&mut definition.input_schema, schema);
        set(&mut definition.output_schema, spec.output_schema);
        set(&mut definition.signals, spec.signals);
        set(&mut definition.queries, spec.queries);
        set(&mut definition.updates, spec.updates);
        set(&mut definition.on_behalf_of, spec.on_behalf_of);
        set(&mut definition.execution_timeout, spec.execution_timeout_s);
        set(&mut self.behaviour, spec.behaviour);
        set(&mut self.display_name, spec.display_name);
        set(&mut self.description, spec.description);
        set(&mut self.tags, spec.tags);
        set(&mut self.archived, spec.archived);
        set(&mut self.available_in_chat_assistant, spec.available_in_chat_assistant);
        set(&mut self.is_technical, spec.is_technical);
        if spec.shared_namespace.is_some() {
            self.shared_namespace = spec.shared_namespace;
        }
        if let Some(deployments) = spec.deployments {
            self.deploy(deployments);
        }
    }

    /// A deployment that stays keeps its registration id.
    fn deploy(&mut self, deployments: Vec<DeploymentSpec>) {
        let old = std::mem::take(&mut self.registrations);
        let id_of = |name: &str| old.iter().find(|it| it.deployment == name).map(|it| it.id);
        self.registrations = deployments
            .into_iter()
            .map(|spec| Registration {
                id: id_of(&spec.name).unwrap_or_else(Uuid::now_v7),
                deployment: spec.name,
                active: spec.active,
            })
            .collect();
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn compile(schema: Option<&Value>) -> Result<Option<Validator>, Error> {
    schema.map(jsonschema::validator_for).transpose().map_err(|error| Error::Workflow(format!("input_schema: {error}")))
}

fn check_json(text: Option<&str>) -> Result<(), Error> {
    let is_json = text.is_none_or(|text| serde_json::from_str::<&RawValue>(text).is_ok());
    if is_json { Ok(()) } else { Err(Error::Workflow("raw_input_schema is no JSON".to_owned())) }
}

fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::Workflow(format!("`{name}` is not a workflow name: 1 to {MAX_NAME} letters, digits, `_` and `-`")))
}
