//! Sets of scopes, one token a line: against a list without repetitions, and back from what is stored.
#![no_main]

use keyward::keys::scopes::{MOST, Scopes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let given: Vec<&str> = text.split('\n').collect();
    let read = Scopes::parse(&given).ok();
    let expected = model(&given);
    let tokens = read.as_ref().map(|scopes| scopes.iter().collect::<Vec<_>>());
    assert_eq!(tokens, expected, "{given:?}");
    let (Some(scopes), Some(tokens)) = (read, expected) else { return };
    assert_eq!(Scopes::from_stored(scopes.as_str().to_string()), scopes);
    assert_eq!(Scopes::parse(&tokens), Ok(scopes.clone()));
    assert!(scopes.cover(&scopes) && scopes.cover(&Scopes::default()));
    assert_eq!(scopes.as_str(), tokens.join(" "));
    // Part of a token is no token of the set, unless it is one by itself.
    for token in &tokens {
        let part = &token[1..];
        assert_eq!(scopes.contains(part), tokens.contains(&part), "{part:?} of {tokens:?}");
    }
});

fn model<'a>(given: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut tokens = Vec::new();
    for token in given {
        // RFC 6749 §3.3.
        let is_good = token.chars().all(|c| matches!(c, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e'));
        if !is_good || token.is_empty() || token.len() > 100 {
            return None;
        }
        if !tokens.contains(token) {
            tokens.push(*token);
        }
    }
    (tokens.len() <= MOST).then_some(tokens)
}
