//! Signals: numbers in the guest, names in images, an enumeration in CRI.

use crate::error::Error;
use hull_cri_api::v1::Signal as CriSignal;
use std::ops::RangeInclusive;

/// SIGTERM: what stops a container whose image and pod say nothing.
const DEFAULT_STOP: u32 = 15;
/// The real-time signals as C libraries number them.
const REAL_TIME: RangeInclusive<u32> = 34..=64;
/// The first that CRI counts down from SIGRTMAX.
const FROM_MAX: u32 = 50;

/// The signal that stops a container: the pod's, else the image's, else SIGTERM.
pub fn stop_signal(pod: CriSignal, image: Option<&str>) -> Result<u32, Error> {
    match (pod, image) {
        (CriSignal::RuntimeDefault, None) => Ok(DEFAULT_STOP),
        (CriSignal::RuntimeDefault, Some(text)) => number(text).ok_or_else(|| {
            Error::InvalidArgument(format!("the image's stop signal {text:?} is unknown"))
        }),
        (pod, _) => number(pod.as_str_name()).ok_or_else(|| {
            Error::InvalidArgument(format!("stop signal {} is unknown", pod.as_str_name()))
        }),
    }
}

/// A signal's number, from a number or a name with or without SIG.
fn number(text: &str) -> Option<u32> {
    if let Ok(number @ 1..=64) = text.parse::<u32>() {
        return Some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = bare.strip_prefix("RTMIN") {
        return real_time(offset, "+", "PLUS", |offset| REAL_TIME.start() + offset);
    }
    if let Some(offset) = bare.strip_prefix("RTMAX") {
        return real_time(offset, "-", "MINUS", |offset| {
            REAL_TIME.end().saturating_sub(offset)
        });
    }
    // Second names of the same numbers.
    let bare = match bare {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        other => other,
    };
    format!("SIG{bare}")
        .parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as u32)
}

fn real_time(offset: &str, sign: &str, word: &str, at: impl Fn(u32) -> u32) -> Option<u32> {
    if offset.is_empty() {
        return Some(at(0));
    }
    let digits = offset
        .strip_prefix(sign)
        .or_else(|| offset.strip_prefix(word))?;
    let number = at(digits.parse().ok()?);
    REAL_TIME.contains(&number).then_some(number)
}

/// A number as CRI's ContainerStatus has it.
pub fn to_cri(number: u32) -> CriSignal {
    let name = if REAL_TIME.contains(&number) {
        match (number - REAL_TIME.start(), REAL_TIME.end() - number) {
            (0, _) => "SIGRTMIN".to_string(),
            (_, 0) => "SIGRTMAX".to_string(),
            (up, _) if number < FROM_MAX => format!("SIGRTMINPLUS{up}"),
            (_, down) => format!("SIGRTMAXMINUS{down}"),
        }
    } else {
        i32::try_from(number)
            .ok()
            .and_then(|number| nix::sys::signal::Signal::try_from(number).ok())
            .map(|signal| signal.as_str().to_string())
            .unwrap_or_default()
    };
    CriSignal::from_str_name(&name).unwrap_or(CriSignal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_understood_by_name_and_number() {
        assert_eq!(number("SIGQUIT"), Some(3));
        assert_eq!(number("quit"), Some(3));
        assert_eq!(number("9"), Some(9));
        assert_eq!(number("SIGRTMIN+3"), Some(37));
        assert_eq!(number("SIGRTMAX-2"), Some(62));
        assert_eq!(number("SIGRTMIN+31"), None);
        assert_eq!((number("SIGNONSENSE"), number("0")), (None, None));
    }

    #[test]
    fn the_pods_stop_signal_comes_before_the_images() {
        assert_eq!(
            stop_signal(CriSignal::Sigusr1, Some("SIGQUIT")).unwrap(),
            10
        );
        let image = |text| stop_signal(CriSignal::RuntimeDefault, text);
        assert_eq!(image(Some("SIGQUIT")).unwrap(), 3);
        assert_eq!(image(None).unwrap(), 15);
        assert!(image(Some("SIGNONSENSE")).is_err());
    }

    #[test]
    fn every_signal_of_cri_has_a_number_and_comes_back() {
        for value in 1..=65 {
            let signal = CriSignal::try_from(value).unwrap();
            let number = stop_signal(signal, None).unwrap();
            let back = to_cri(number);
            let alias = matches!(
                signal,
                CriSignal::Sigcld | CriSignal::Sigiot | CriSignal::Sigpoll
            );
            assert!(back == signal || alias, "{signal:?} {number} {back:?}");
        }
    }
}
