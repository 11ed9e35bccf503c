//! Questions that are created and answered, and never stored: `authorization.k8s.io/v1` and
//! `authentication.k8s.io/v1`. The API server answers them.

use super::PLAIN;
use crate::registry::{Keeping, Kind};

/// What all of them share.
const REVIEW: Kind = Kind {
    group: "authorization.k8s.io",
    namespaced: false,
    delete_collection: false,
    keeping: Keeping::Answered,
    ..PLAIN
};

/// May a user do this in one namespace?
pub static LOCAL_SUBJECT_ACCESS_REVIEWS: Kind = Kind {
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    namespaced: true,
    schema: "authorization.LocalSubjectAccessReview",
    storage: "localsubjectaccessreviews",
    ..REVIEW
};

/// May I do this?
pub static SELF_SUBJECT_ACCESS_REVIEWS: Kind = Kind {
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    schema: "authorization.SelfSubjectAccessReview",
    storage: "selfsubjectaccessreviews",
    ..REVIEW
};

/// What may I do in a namespace?
pub static SELF_SUBJECT_RULES_REVIEWS: Kind = Kind {
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    schema: "authorization.SelfSubjectRulesReview",
    storage: "selfsubjectrulesreviews",
    ..REVIEW
};

/// May a user do this?
pub static SUBJECT_ACCESS_REVIEWS: Kind = Kind {
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    schema: "authorization.SubjectAccessReview",
    storage: "subjectaccessreviews",
    ..REVIEW
};

/// Who am I?
pub static SELF_SUBJECT_REVIEWS: Kind = Kind {
    group: "authentication.k8s.io",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    schema: "authentication.SelfSubjectReview",
    storage: "selfsubjectreviews",
    ..REVIEW
};

/// Whose token is this?
pub static TOKEN_REVIEWS: Kind = Kind {
    group: "authentication.k8s.io",
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    schema: "authentication.TokenReview",
    storage: "tokenreviews",
    ..REVIEW
};
