//! Starting a container's program: image, environment, mounts, files, and then the stage.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::attach::Input;
use super::super::environment::{self, Subject};
use super::super::exec::pipe_pair;
use super::super::handle::Run;
use super::super::logs::{Log, Stream};
use super::super::plan;
use super::super::process::Process;
use super::super::stage::{ContainerTask, Mount, Task};
use super::super::state::{Now, One, PodState, now_in_seconds};
use super::super::terminal::Terminal;
use super::super::volumes::Volumes;
use super::{StartError, Supervised};
use crate::images::Image;

impl Supervised {
    /// Starts the container's program once more; `attempt` counts from 0.
    pub(super) async fn start(&self, attempt: u32) -> Result<Run, StartError> {
        let name = &self.container.name;
        let initializing = |one: &One| matches!(&one.now, Now::Waiting { reason, .. } if reason == "PodInitializing");
        let first = |state: &PodState| state.containers.get(name).is_some_and(initializing);
        if self.pod.read(first) {
            self.pod.set_waiting(name, "ContainerCreating", "");
        }
        let image_name = self.container.image.as_deref().unwrap_or_default();
        let image = self.machine.image(image_name).ok_or_else(|| StartError::Waiting {
            reason: "ErrImagePull",
            message: format!(
                "no program is known for image \"{image_name}\": add an entry for it to a file given with `lateen sandbox up --images FILE`, or use an image of the built-in table"
            ),
        })?;
        let network = self.pod.network().ok_or_else(|| StartError::Waiting {
            reason: "ContainerCreating",
            message: String::new(),
        })?;
        let directory = self.pod.directory.join("containers").join(name);
        let scratch = directory.join(attempt.to_string());
        let termination = prepare(&directory, &scratch, attempt).map_err(|e| {
            StartError::Program(format!("cannot prepare {}: {e}", scratch.display()))
        })?;
        let task = self
            .task(&image, network.address, &scratch, &termination)
            .await
            .map_err(|message| StartError::Waiting {
                reason: "CreateContainerConfigError",
                message,
            })?;
        let program = Arc::new(task.program.clone());
        let capabilities = task.capabilities.clone();
        let log = Log::new(
            self.pod
                .directory
                .join(format!("logs/{name}-{attempt}.log")),
        );
        let (process, input) = self.launch(task, &network, &log).await?;
        let run = Run {
            process,
            program,
            capabilities,
            log,
            input,
        };
        self.record_start(&run);
        Ok(run)
    }

    /// What the stage is told.
    async fn task(
        &self,
        image: &Image,
        address: Ipv4Addr,
        scratch: &Path,
        termination: &Path,
    ) -> Result<ContainerTask, String> {
        let pod = self.pod.pod();
        let spec = pod.spec.clone().unwrap_or_default();
        let subject = Subject {
            cache: &self.machine.cache,
            pod: &pod,
            container: &self.container,
            address,
        };
        let environment = environment::resolve(subject, &image.env).await?;
        let real_root = self.machine.real_root;
        let program = plan::program(&spec, &self.container, image, &environment, real_root)?;
        let volumes = Volumes::new(&self.pod.directory, &self.machine.shared);
        let mut mounts = self.pod_files();
        mounts.extend(volumes.mounts(&pod, &self.container, &environment)?);
        let message_path = self.container.termination_message_path.clone();
        mounts.push(Mount {
            source: termination.display().to_string(),
            target: message_path
                .filter(|path| !path.is_empty())
                .unwrap_or_else(|| "/dev/termination-log".into()),
            read_only: false,
        });
        let context = self.container.security_context.as_ref();
        Ok(ContainerTask {
            scratch: scratch.display().to_string(),
            executable: self.machine.executable.display().to_string(),
            mounts,
            host_directories: plan::extra_directory(&program.argv).into_iter().collect(),
            program,
            capabilities: plan::capabilities(&self.container, real_root),
            privileged: context.and_then(|c| c.privileged) == Some(true),
        })
    }

    async fn launch(
        &self,
        task: ContainerTask,
        network: &crate::cluster_network::PodNetwork,
        log: &Log,
    ) -> Result<(Process, Input), StartError> {
        let fail = |e: std::io::Error| StartError::Program(format!("cannot open its files: {e}"));
        let (out_read, out_write) = pipe_pair().map_err(fail)?;
        let (err_read, err_write) = pipe_pair().map_err(fail)?;
        let keep = |file: &OwnedFd| file.try_clone().map(Arc::new).map_err(fail);
        let (stdin, mut input) = Input::new(&self.container).map_err(fail)?;
        let files = vec![
            stdin,
            Arc::new(out_write),
            Arc::new(err_write),
            keep(&network.net)?,
            keep(&network.uts)?,
            keep(&network.ipc)?,
        ];
        log.copy_from(out_read, Stream::Out).map_err(fail)?;
        log.copy_from(err_read, Stream::Err).map_err(fail)?;
        let launched = self
            .machine
            .reaper
            .launch(Task::Container(task), files)
            .await
            .map_err(StartError::Program)?;
        if let Some(terminal) = launched.terminal {
            let terminal = Terminal::new(terminal).map_err(fail)?;
            log.copy_terminal(terminal.clone());
            input = Input::Terminal(terminal);
        }
        Ok((launched.process, input))
    }

    fn record_start(&self, run: &Run) {
        let name = &self.container.name;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut old = None;
        self.pod.change_runs(name, |runs| {
            let before = runs.current.replace(run.clone()).map(|r| r.log);
            if before.is_some() {
                old = std::mem::replace(&mut runs.previous, before);
            }
        });
        if let Some(log) = old {
            log.remove();
        }
        self.pod.change_container(name, |one| {
            match &one.now {
                Now::Terminated(end) => {
                    one.last = Some(end.clone());
                    one.restarts += 1;
                }
                Now::Waiting { reason, .. } if reason == "CrashLoopBackOff" => one.restarts += 1,
                _ => {}
            }
            one.now = Now::Running(now_in_seconds());
            one.id = Some(id);
        });
        self.tell("Started", format!("Started container {name}"));
    }

    /// Files that all containers of the pod share.
    fn pod_files(&self) -> Vec<Mount> {
        ["hosts", "resolv.conf", "hostname"]
            .iter()
            .map(|name| Mount {
                source: self
                    .pod
                    .directory
                    .join("etc")
                    .join(name)
                    .display()
                    .to_string(),
                target: format!("/etc/{name}"),
                read_only: false,
            })
            .collect()
    }
}

/// A fresh scratch directory, without the one of the run before, and the termination message's file.
fn prepare(directory: &Path, scratch: &Path, attempt: u32) -> std::io::Result<PathBuf> {
    if let Some(before) = attempt.checked_sub(1) {
        let _ = fs::remove_dir_all(directory.join(before.to_string()));
    }
    fs::create_dir_all(scratch)?;
    let termination = directory.join("termination-log");
    fs::write(&termination, "")?;
    fs::set_permissions(&termination, fs::Permissions::from_mode(0o666))?;
    Ok(termination)
}
