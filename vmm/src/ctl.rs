//! `hull-vmm ctl SOCKET COMMAND`: the control socket by hand.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hull_vmm_client::client::ControlClient;
use hull_vmm_client::control::{Answer, Request};
use hull_vmm_client::scaled;

/// What can be asked.
pub const USAGE: &str = "hull-vmm ctl SOCKET COMMAND, which is one of
  state                      id, process, time, disks, as JSON
  pause | resume | stop      the vCPUs; the whole VM
  metrics                    Prometheus text
  console [BYTES] [--follow] the newest output (65536 bytes), then what comes
  dump                       where the vCPUs stand, and the devices' registers and queues
  attach-disk SERIAL FILE    a file behind an empty disk (--read-only: opened so)
  detach-disk SERIAL
  detach-net ID              takes the tap away
  limit-disk SERIAL LIMITS   JSON: {\"bytes\":{\"per_second\":N,\"burst\":N},\"operations\":{...}}
  limit-net ID RECEIVE SEND  the same, for each direction
  resize-balloon MIB";

/// How many bytes of the console are shown.
const CONSOLE_BYTES: usize = 64 << 10;
/// How often a console that is followed is asked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// Carries out a command; what it prints goes to `out`.
pub fn run(arguments: &[String], out: &mut dyn Write) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((socket, command)) = words.split_first() else {
        bail!("usage: {USAGE}");
    };
    let client = ControlClient::new(*socket);
    if let ["console", rest @ ..] = command {
        return console(&client, rest, out);
    }
    let (request, file) = parse(command)?;
    let answer = client.call_blocking(&request, file.as_ref().map(AsFd::as_fd))?;
    match answer {
        Answer::Ok => {}
        Answer::Metrics { text } | Answer::Console { text, .. } => {
            out.write_all(text.as_bytes())?;
        }
        Answer::Dump { vcpus, text } => {
            if vcpus.is_empty() {
                writeln!(out, "The vCPUs do not leave the guest.")?;
            }
            for vcpu in vcpus {
                writeln!(out, "{vcpu}")?;
            }
            out.write_all(text.as_bytes())?;
        }
        other => {
            serde_json::to_writer_pretty(&mut *out, &other)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

fn parse(command: &[&str]) -> anyhow::Result<(Request, Option<File>)> {
    let limits = |text: &str| {
        serde_json::from_str(text).with_context(|| format!("\"{text}\" is no set of limits"))
    };
    let serial = |text: &str| text.to_owned();
    let request = match command {
        ["state"] => Request::State,
        ["stop"] => Request::Stop,
        ["pause"] => Request::Pause,
        ["resume"] => Request::Resume,
        ["metrics"] => Request::Metrics,
        ["dump"] => Request::Dump,
        ["attach-disk", disk, path, rest @ ..] => {
            let write = match rest {
                [] => true,
                ["--read-only"] => false,
                _ => bail!("usage: {USAGE}"),
            };
            let file = File::options()
                .read(true)
                .write(write)
                .open(path)
                .with_context(|| format!("Failed to open {path}"))?;
            let request = Request::AttachDisk {
                serial: serial(disk),
            };
            return Ok((request, Some(file)));
        }
        ["detach-disk", disk] => Request::DetachDisk {
            serial: serial(disk),
        },
        ["detach-net", id] => Request::DetachNet {
            id: (*id).to_owned(),
        },
        ["limit-disk", disk, text] => Request::LimitDisk {
            serial: serial(disk),
            limits: limits(text)?,
        },
        ["limit-net", id, receive, send] => Request::LimitNet {
            id: (*id).to_owned(),
            receive: limits(receive)?,
            send: limits(send)?,
        },
        ["resize-balloon", mib] => Request::ResizeBalloon {
            mib: mib
                .parse()
                .with_context(|| format!("\"{mib}\" is no number of MiB"))?,
        },
        _ => bail!("usage: {USAGE}"),
    };
    Ok((request, None))
}

/// Prints the newest output; with `--follow` what is new, until the VM is gone.
fn console(client: &ControlClient, rest: &[&str], out: &mut dyn Write) -> anyhow::Result<()> {
    let (max_bytes, follow) = match rest {
        [] => (CONSOLE_BYTES, false),
        ["--follow"] => (CONSOLE_BYTES, true),
        [bytes] => (bytes.parse().context("BYTES is no number")?, false),
        [bytes, "--follow"] => (bytes.parse().context("BYTES is no number")?, true),
        _ => bail!("usage: {USAGE}"),
    };
    let read = |max_bytes, after| {
        let request = Request::Console { max_bytes, after };
        match client.call_blocking(&request, None)? {
            Answer::Console { text, end } => anyhow::Ok((text, end)),
            _ => bail!("The VMM gave an answer of another kind"),
        }
    };
    let (text, mut position) = read(max_bytes, 0)?;
    out.write_all(text.as_bytes())?;
    if !follow {
        return Ok(());
    }
    loop {
        let Some(end) = position else {
            bail!("This VMM is older than --follow; without it the console is shown once");
        };
        let next = Instant::now() + scaled(FOLLOW_EVERY);
        // The VM is gone: its console was shown up to the last answer.
        let Ok((text, now)) = read(CONSOLE_BYTES, end) else {
            return Ok(());
        };
        out.write_all(text.as_bytes())?;
        out.flush()?;
        position = now;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_becomes_its_request() {
        let request = |words: &[&str]| parse(words).unwrap().0;
        assert_eq!(request(&["pause"]), Request::Pause);
        assert_eq!(
            request(&["detach-disk", "a"]),
            Request::DetachDisk { serial: "a".into() }
        );
        assert_eq!(
            request(&["resize-balloon", "64"]),
            Request::ResizeBalloon { mib: 64 }
        );
        let text = r#"{"bytes":{"per_second":5}}"#;
        let Request::LimitNet { receive, send, .. } = request(&["limit-net", "eth0", text, "{}"])
        else {
            panic!("another request");
        };
        assert_eq!(receive.bytes.unwrap().per_second, 5);
        assert_eq!(send.bytes, None);
    }

    #[test]
    fn what_is_no_command_is_answered_with_the_usage() {
        for words in [&["fly"][..], &[], &["pause", "now"], &["limit-disk", "a"]] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains("usage: hull-vmm ctl"), "{error}");
        }
        let error = parse(&["limit-disk", "a", "fast"]).unwrap_err().to_string();
        assert!(error.contains("no set of limits"), "{error}");
        let error = parse(&["attach-disk", "a", "/nonexistent"]).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"));
    }
}
