//! More processes in a running container.

use std::path::PathBuf;
use std::sync::Arc;

use hull_agent_protocol::v1::ExecRequest;
use oci_spec::runtime::Process as OciProcess;

use super::containers::{Containers, command_error};
use super::process::{self, Process, StreamOptions};
use super::{Container, spec};
use crate::error::Error;
use crate::name;

impl Containers {
    /// Starts a process in a running container.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken, [`Error::State`] when the container does
    /// not run, [`Error::Command`] when the command cannot be executed.
    pub async fn exec(&self, request: &ExecRequest) -> Result<Arc<Process>, Error> {
        let container = self.get(&request.container_id)?;
        name::check("exec id", &request.exec_id)?;
        let id = &request.exec_id;
        if container.started_at_ns.lock().is_none() || container.process.exit().is_some() {
            let message = format!("container {:?} is not running", container.id);
            return Err(Error::State(message));
        }
        {
            let mut execs = container.execs.lock();
            if execs.contains_key(id) {
                return Err(Error::Exists {
                    what: "exec",
                    id: id.clone(),
                });
            }
            execs.insert(id.clone(), None);
        }
        let started = self.start_exec(&container, request).await;
        let mut execs = container.execs.lock();
        match &started {
            Ok(process) => execs.insert(id.clone(), Some(Arc::clone(process))),
            Err(_) => execs.remove(id),
        };
        started
    }

    async fn start_exec(
        &self,
        container: &Container,
        request: &ExecRequest,
    ) -> Result<Arc<Process>, Error> {
        let oci = exec_process(container, request)?;
        let file = self.process_file(&container.id, &request.exec_id);
        let json = serde_json::to_vec(&oci).map_err(spec::SpecError::from)?;
        std::fs::write(&file, json).map_err(Error::io("write the exec's process"))?;
        let (stdio, streams) = process::prepare(StreamOptions {
            tty: request.tty,
            stdin: request.stdin,
            close_stdin_at_end: true,
            uid: oci.user().uid(),
            gid: oci.user().gid(),
        })
        .map_err(Error::io("make the process's pipes"))?;
        let bundle = self.layout.container(&container.id).join("bundle");
        let launched = self
            .engine
            .exec(&container.id, &bundle, &file, request.tty, stdio)
            .await;
        std::fs::remove_file(&file).map_err(Error::io("remove the exec's process"))?;
        let (process, _) = Process::adopt(
            &container.id,
            &request.exec_id,
            launched.map_err(command_error)?,
            streams,
            container.cgroup.clone(),
            Arc::clone(&self.events),
        )
        .map_err(Error::io("read the process's output"))?;
        if let Some(terminal) = process.terminal()
            && request.tty_rows > 0
            && request.tty_columns > 0
        {
            let (rows, columns) = (request.tty_rows.into(), request.tty_columns.into());
            terminal
                .resize(
                    super::containers::clamp(rows),
                    super::containers::clamp(columns),
                )
                .map_err(Error::io("size the terminal"))?;
        }
        Ok(process)
    }

    /// Forgets an exec that has ended. One that does not exist is removed already.
    ///
    /// # Errors
    /// [`Error::State`] while it runs.
    pub fn remove_exec(&self, container: &str, exec: &str) -> Result<(), Error> {
        name::check("container id", container)?;
        name::check("exec id", exec)?;
        let Ok(container) = self.get(container) else {
            return Ok(());
        };
        let mut execs = container.execs.lock();
        match execs.get(exec) {
            None => return Ok(()),
            Some(Some(process)) if process.exit().is_some() => {}
            Some(_) => return Err(Error::State(format!("exec {exec:?} is running"))),
        }
        execs.remove(exec);
        self.events.forget(&container.id, Some(exec));
        Ok(())
    }

    fn process_file(&self, container: &str, exec: &str) -> PathBuf {
        self.layout
            .container(container)
            .join(format!("exec-{exec}.json"))
    }
}

/// The container's own process with what the request changes.
fn exec_process(container: &Container, request: &ExecRequest) -> Result<OciProcess, Error> {
    let mut process = container.template.clone();
    if !request.args.is_empty() {
        process.set_args(Some(request.args.clone()));
    }
    if !request.cwd.is_empty() {
        if !request.cwd.starts_with('/') {
            return Err(Error::Invalid(format!(
                "working directory {:?} is not absolute",
                request.cwd
            )));
        }
        process.set_cwd(request.cwd.clone().into());
    }
    let env = merge_env(process.env().clone().unwrap_or_default(), request);
    process
        .set_env(Some(env))
        .set_terminal(Some(request.tty))
        .set_console_size(None);
    if !request.user.is_empty() {
        let mut user = process.user().clone();
        user.set_additional_gids(None)
            .set_username(Some(request.user.clone()));
        process.set_user(user);
        spec::resolve_user(&mut process, &container.root)?;
    }
    Ok(process)
}

/// The container's environment with the request's variables in place of its own.
fn merge_env(own: Vec<String>, request: &ExecRequest) -> Vec<String> {
    let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let set: Vec<String> = request.env.iter().map(|variable| key(variable)).collect();
    let mut env: Vec<String> = own
        .into_iter()
        .filter(|variable| !set.contains(&key(variable)))
        .chain(request.env.iter().cloned())
        .collect();
    if request.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_variables_replace_the_containers() {
        let request = ExecRequest {
            env: vec!["A=2".into(), "C=3".into()],
            tty: true,
            ..Default::default()
        };
        let own = vec!["A=1".into(), "AB=1".into()];
        assert_eq!(
            merge_env(own, &request),
            ["AB=1", "A=2", "C=3", "TERM=xterm"]
        );
    }
}
