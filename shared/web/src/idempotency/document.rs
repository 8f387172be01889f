//! What the API document says of `Idempotency-Key`: once, for every operation that takes it.

use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder,
    path::{Operation, ParameterBuilder, ParameterIn},
    schema::{ObjectBuilder, Type},
};

use super::KEY_CHARS;

const REFUSALS: [(&str, &str); 3] = [
    ("400", "`invalid_parameter`: the `Idempotency-Key` is malformed."),
    (
        "409",
        "`idempotency_in_flight`: a request with this `Idempotency-Key` is being worked on, ask again after \
         `Retry-After`; `idempotency_answer_lost`: it was carried out, and its answer was lost.",
    ),
    ("422", "`idempotency_key_reused`: the `Idempotency-Key` was used for a request with another path, query or body."),
];

/// Documents the header on every POST there is.
pub(super) fn write(document: &mut OpenApi) {
    for operation in document.paths.paths.values_mut().filter_map(|item| item.post.as_mut()) {
        describe(operation);
    }
}

fn describe(operation: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(KEY_CHARS));
    let text = text.pattern(Some("^[!-~]+$")).build();
    let parameter = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Visible ASCII that is new for each thing that is to be done, like a UUID. For 24 hours the same request \
             with the same key is answered as it was the first time, and not carried out again.",
        ))
        .schema(Some(text));
    operation.parameters.get_or_insert_default().push(RefOr::T(parameter.build()));

    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        if let (true, RefOr::T(response)) = (status.starts_with('2'), response) {
            let text = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["true"])).build();
            let header = HeaderBuilder::new().schema(Some(text)).description(Some("The answer was given before."));
            response.headers.insert("idempotent-replayed".to_owned(), RefOr::T(header.build()));
        }
    }
    for (status, says) in REFUSALS {
        match responses.get_mut(status) {
            Some(RefOr::T(response)) => response.description = format!("{} Or {says}", response.description),
            Some(RefOr::Ref(_)) => {}
            None => {
                let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
                let response = ResponseBuilder::new().description(says).content("application/problem+json", problem);
                responses.insert(status.to_owned(), RefOr::T(response.build()));
            }
        }
    }
}
