//! The input of a run. ConfigMaps and Secrets may hold parts of it.

pub(crate) mod compose;
mod redaction;
pub(crate) mod sources;
#[cfg(test)]
mod tests;

use crate::execution::state::ExecutionState;
use crate::mistral::wire::ExecuteRequest;
pub use compose::compose;
pub(crate) use redaction::{Redaction, redaction};
pub use redaction::{redacting, redactor};
pub(crate) use sources::MAX_INPUT;
pub use sources::{Admission, INPUT_LABEL, Input, InputError, Source, Sources, wanted};

/// The call that starts the run. None if a part of its input is missing.
pub fn request(state: &ExecutionState) -> Option<ExecuteRequest> {
    let spec = &state.spec;
    let input = match &state.outcomes.input {
        Input::Read(sources) => compose(spec, sources).ok()?,
        Input::NotRead => compose(spec, &Sources::new()).ok()?,
    };
    Some(ExecuteRequest {
        execution_id: state.execution_id(),
        input,
        deployment_name: spec.deployment_name.clone(),
        custom_tracing_attributes: spec.custom_tracing_attributes.clone(),
        extensions: spec.extensions.clone(),
    })
}
