//! A change as watches send it: written by the first that needs it in a form, kept for the others.

use bytes::Bytes;
use hull_api::Kind;
use parking_lot::Mutex;

use crate::http::Accept;

/// In which form a change is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub kind: &'static Kind,
    pub accept: Accept,
    /// `ADDED`, `MODIFIED` or `DELETED`: a change is different things to different selectors.
    pub event: &'static str,
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        // A definition that changes makes new kinds.
        std::ptr::eq(self.kind, other.kind)
            && (self.accept, self.event) == (other.accept, other.event)
    }
}

/// The forms that a change was written in; few.
#[derive(Debug, Default)]
pub(crate) struct Frames(Mutex<Vec<(Form, Bytes)>>);

impl Frames {
    /// The frame, and whether it was written just now. Others who want one wait meanwhile, so
    /// that each form is written once.
    pub(crate) fn get_or_write(&self, form: Form, write: impl FnOnce() -> Bytes) -> (Bytes, bool) {
        let mut frames = self.0.lock();
        if let Some((_, frame)) = frames.iter().find(|(known, _)| *known == form) {
            return (frame.clone(), false);
        }
        let frame = write();
        frames.push((form, frame.clone()));
        (frame, true)
    }

    /// Watches that come later write their own.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use hull_api::Registry;

    use super::*;
    use crate::http::Encoding;

    #[test]
    fn each_form_is_written_once() {
        let mut kinds = Registry::get().kinds().iter();
        let (kind, other_kind) = (kinds.next().unwrap(), kinds.next().unwrap());
        let json = Form {
            kind,
            accept: Accept::Object(Encoding::Json),
            event: "ADDED",
        };
        let forms = [
            json,
            Form {
                event: "MODIFIED",
                ..json
            },
            Form {
                kind: other_kind,
                ..json
            },
            Form {
                accept: Accept::Object(Encoding::Protobuf),
                ..json
            },
        ];
        let frames = Frames::default();
        for (number, form) in forms.into_iter().enumerate() {
            let text = format!("{number}");
            let (frame, is_new) = frames.get_or_write(form, || text.clone().into());
            assert!(is_new && frame == text, "{form:?}");
        }
        for (number, form) in forms.into_iter().enumerate() {
            let (frame, is_new) = frames.get_or_write(form, || unreachable!());
            assert!(!is_new && frame == number.to_string());
        }
        frames.forget();
        assert!(frames.get_or_write(json, || "again".into()).1);
    }
}
