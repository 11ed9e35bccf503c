//! What configurations are refused, and what users claims make.

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

/// An AuthenticationConfiguration with one issuer, after `change`.
fn configuration(change: impl FnOnce(&mut Value)) -> String {
    let mut file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {
                "url": "https://issuer.example",
                "audiences": ["hull", "other"],
                "audienceMatchPolicy": "MatchAny",
                "certificateAuthority": certificate(),
            },
            "claimMappings": {
                "username": {"claim": "sub", "prefix": "oidc:"},
                "groups": {"claim": "groups", "prefix": "oidc:"},
                "uid": {"claim": "uid"},
                "extra": [{"key": "example.org/team", "valueExpression": "claims.?team.orValue('')"}],
            },
            "claimValidationRules": [
                {"claim": "hd", "requiredValue": "example.org"},
                {"expression": "claims.exp - claims.nbf <= 3600", "message": "at most an hour"},
            ],
            "userValidationRules": [{"expression": "!user.username.startsWith('oidc:root')"}],
        }],
    });
    change(&mut file);
    file.to_string()
}

fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::default();
    params.self_signed(&key).unwrap().pem()
}

fn user(
    change_file: impl FnOnce(&mut Value),
    change: impl FnOnce(&mut Value),
) -> Result<UserInfo, String> {
    let issuers = JwtIssuers::parse(&configuration(change_file)).unwrap();
    let mut claims = json!({"iss": "https://issuer.example", "sub": "ada", "aud": "hull", "uid": "7",
        "groups": ["dev", "ops"], "hd": "example.org", "team": ["blue"],
        "nbf": NOW - 60, "exp": NOW + 60});
    change(&mut claims);
    issuers.0.read()[0].user_of(&claims, NOW)
}

#[test]
fn claims_make_a_user() {
    let ada = user(|_| {}, |_| {}).unwrap();
    assert_eq!((ada.name.as_str(), ada.uid.as_str()), ("oidc:ada", "7"));
    assert_eq!(ada.groups, ["oidc:dev", "oidc:ops", "system:authenticated"]);
    assert_eq!(ada.extra["example.org/team"], ["blue"]);

    let by_expression = |file: &mut Value| {
        let mappings = &mut file["jwt"][0]["claimMappings"];
        mappings["username"] = json!({"expression": "claims.sub + '@' + claims.hd"});
        mappings["groups"] = json!({"expression": "claims.groups.filter(g, g != 'ops')"});
        mappings["uid"] = json!({"expression": "string(claims.exp)"});
    };
    let ada = user(by_expression, |claims| claims["team"] = json!("")).unwrap();
    assert_eq!(ada.name, "ada@example.org");
    assert_eq!(ada.groups, ["dev", "system:authenticated"]);
    assert_eq!(ada.uid, (NOW + 60).to_string());
    assert!(ada.extra.is_empty());
    let several = user(|_| {}, |claims| claims["aud"] = json!(["x", "other"]));
    assert!(several.is_ok(), "{several:?}");
}

#[test]
fn tokens_that_break_a_rule_are_refused_with_its_name() {
    for (field, value, words) in [
        ("exp", json!(NOW), "expired"),
        ("exp", json!(null), "no end"),
        ("nbf", json!(NOW + 301), "not hold yet"),
        ("aud", json!("somebody"), "it is for"),
        ("aud", json!([]), "it is for"),
        ("sub", json!(7), "username cannot be 7"),
        ("sub", json!("root-2"), "user is not allowed"),
        ("groups", json!({"a": 1}), "groups cannot be"),
        ("hd", json!("example.com"), "claim \"hd\""),
        ("nbf", json!(NOW - 9000), "at most an hour"),
        ("uid", json!(null), "uid cannot be null"),
    ] {
        let refused = user(|_| {}, |claims| claims[field] = value.clone()).unwrap_err();
        assert!(refused.contains(words), "{field} {value}: {refused}");
    }
    let by_email = |file: &mut Value| {
        file["jwt"][0]["claimMappings"]["username"] = json!({"claim": "email", "prefix": ""});
    };
    let mail = |verified: Value| {
        user(by_email, |claims| {
            claims["email"] = json!("ada@example.org");
            claims["email_verified"] = verified;
        })
    };
    assert_eq!(mail(json!(true)).unwrap().name, "ada@example.org");
    assert!(mail(json!(false)).unwrap_err().contains("not verified"));
}

#[test]
fn configurations_that_cannot_be_are_refused_by_field() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 14] = [
        (|file| file["kind"] = json!("Policy"), "it is Policy"),
        (|file| file["jwtt"] = json!([]), "jwtt"),
        (
            |file| file["anonymous"] = json!({"enabled": true}),
            "anonymous",
        ),
        (
            |file| file["jwt"][0]["issuer"]["url"] = json!("http://a"),
            "jwt[0].issuer.url",
        ),
        (
            |file| file["jwt"][0]["issuer"]["url"] = json!("https://u@a"),
            "jwt[0].issuer.url",
        ),
        (
            |file| file["jwt"][0]["issuer"]["url"] = json!(crate::auth::tokens::ISSUER),
            "own issuer",
        ),
        (
            |file| file["jwt"][0]["issuer"]["audiences"] = json!([]),
            "jwt[0].issuer.audiences",
        ),
        (
            |file| file["jwt"][0]["issuer"]["audienceMatchPolicy"] = json!(""),
            "audienceMatchPolicy",
        ),
        (
            |file| file["jwt"][0]["issuer"]["certificateAuthority"] = json!("PEM"),
            "certificateAuthority",
        ),
        (
            |file| file["jwt"][0]["claimMappings"]["username"] = json!({}),
            "username",
        ),
        (
            |file| file["jwt"][0]["claimMappings"]["username"] = json!({"claim": "sub"}),
            "prefix is required",
        ),
        (
            |file| {
                file["jwt"][0]["claimMappings"]["username"] = json!({"expression": "claims.email"})
            },
            "email_verified",
        ),
        (
            |file| file["jwt"][0]["userValidationRules"][0]["expression"] = json!("usr.name"),
            "userValidationRules[0].expression",
        ),
        (
            |file| {
                let first = file["jwt"][0].clone();
                file["jwt"].as_array_mut().unwrap().push(first);
            },
            "jwt[1].issuer.url: duplicate value",
        ),
    ];
    for (change, words) in cases {
        let error = JwtIssuers::parse(&configuration(change))
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn the_documented_example_is_a_configuration() {
    let page = include_str!("../../../../../docs/apiserver.md");
    let blocks = page.split("```yaml\n").skip(1);
    let mut blocks = blocks.filter_map(|block| block.split("```").next());
    let example = blocks.find(|block| block.contains("kind: AuthenticationConfiguration"));
    let given = format!("certificateAuthority: {}", json!(certificate()));
    let text = example
        .unwrap()
        .replace(r#"certificateAuthority: """#, &given);
    assert_eq!(JwtIssuers::parse(&text).unwrap().0.read().len(), 1);
}
