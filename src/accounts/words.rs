//! What is a word in any script: letters, each with the marks that belong to it.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

/// Whether all of it is letters with their marks, digits, and `signs`. Not empty.
pub(crate) fn is_word(text: &str, signs: &str) -> bool {
    let mut letter = None;
    let mut marks = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_alphanumeric() || signs.contains(c) {
            // Many vowel signs are alphabetic; a further mark belongs to the letter before them.
            if !is_mark(c) {
                letter = Some(c);
                marks.clear();
            }
        } else if is_mark(c) {
            let Some(letter) = letter.filter(|letter| may_stand_on(c, *letter)) else { return false };
            if marks.len() == MOST_MARKS || marks.last() == Some(&c) || is_dot_on_a_dot(c, letter) {
                return false;
            }
            marks.push(c);
        } else if !letter.is_some_and(|letter| is_sign_of_a_word(letter, c, rest.peek().copied())) {
            return false;
        }
    }
    !text.is_empty()
}

/// More of them on one letter are no spelling (UTS 39 §5.4, which also refuses one twice in a row).
const MOST_MARKS: usize = 4;

fn is_mark(c: char) -> bool {
    matches!(c.general_category(), GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark)
}

/// Whether a mark belongs to the script of a letter, or to all scripts, and can be seen.
fn may_stand_on(mark: char, letter: char) -> bool {
    let is_of_no_letter = matches!(mark,
        // They cannot be seen.
        '\u{34f}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{16fe4}'
        | '\u{e0100}'..='\u{e01ef}'
        // They belong to symbols, to two letters, and to notes of music.
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}' | '\u{1d165}'..='\u{1d244}');
    !is_of_no_letter
        && letter.is_alphabetic()
        && !mark.script_extension().intersection(letter.script_extension()).is_empty()
}

/// A dot that nobody sees, because the letter has one.
fn is_dot_on_a_dot(mark: char, letter: char) -> bool {
    mark == '\u{307}' && "iıjȷįịɨʝіјϳᶖⁱ".contains(letter)
}

/// A sign without which a word of its language cannot be written: between two l in Catalan, after a letter in Hebrew and
/// Japanese, after a syllable in Tibetan (RFC 5892, appendix A, and §2.6).
fn is_sign_of_a_word(before: char, sign: char, after: Option<char>) -> bool {
    match sign {
        '\u{b7}' => before == 'l' && after == Some('l'),
        '\u{5f3}' | '\u{5f4}' => before.script() == Script::Hebrew,
        '\u{30fb}' => {
            let scripts = before.script_extension();
            [Script::Hiragana, Script::Katakana, Script::Han].iter().any(|script| scripts.contains_script(*script))
        }
        '\u{f0b}' => before.script() == Script::Tibetan,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_belong_to_the_letters_of_their_script() {
        for text in [
            "संपर्क",
            "ติดต่อ",
            "مُحَمَّد",
            "שָׁלוֹם",
            "mɔ́tɔ",
            "ߒߞߏ߫",
            "col·laboració",
            "ג׳ון",
            "サーバー・ルーム",
            "བོད་ཡིག",
            "a1+b",
        ] {
            assert!(is_word(text, "+"), "{text:?}");
        }
        for text in [
            "",
            // On nothing, on a digit, on a sign, on a letter of another script.
            "\u{308}ann",
            "1\u{308}",
            "a+\u{301}",
            "a\u{94d}",
            "ก\u{94d}",
            "a\u{e48}",
            "a\u{658}",
            "漢\u{591}",
            // Too many, one twice, a dot that nobody sees.
            "z\u{334}\u{32a}\u{351}\u{343}\u{300}",
            "q\u{301}\u{301}",
            "i\u{307}an",
            // Of symbols and of music; around a letter; a selector; invisible ones.
            "a\u{20d7}",
            "a\u{1d167}",
            "a\u{20dd}",
            "a\u{fe0f}",
            "a\u{34f}",
            "ᠠ\u{180b}",
            "a\u{e0100}",
            "क\u{200d}",
            "क\u{94d}\u{200d}",
            "a\u{200c}",
            // Signs of words where they are none.
            "a·b",
            "l·",
            "a׳",
            "a་",
            "a・",
        ] {
            assert!(!is_word(text, "+"), "{text:?}");
        }
    }
}
