//! Runs single nodes.

use std::time::Duration;

use serde_json::{Value, json};

use super::events::Picture;
use super::models;
use super::pictures;
use super::python_json::dumps;
use super::run::{Made, Run};
use super::state::FileKind;
use crate::net::sleep;

/// The result of a node.
pub(super) enum Given {
    Done {
        made: Made,
        shown: Option<Value>,
    },
    Failed(Value),
    Interrupted(Value),
    /// It raised `SystemExit`, which nothing catches: the thread ends silently.
    Exit,
}

impl Run<'_> {
    pub(super) async fn perform(&mut self, id: &str, node: &Value) -> Given {
        let class = node["class_type"].as_str().unwrap_or_default();
        match class {
            "EmptyImage" => done(Made::Pictures(pictures::empty(
                self.integer(node, "width"),
                self.integer(node, "height"),
                self.integer(node, "batch_size"),
                self.integer(node, "color"),
            ))),
            "LoadImage" => self.load(id, node),
            "ETN_LoadImageCache" => self.load_cached(id, node),
            "VHS_LoadImages" => self.load_folder(id, node),
            "ImageInvert" => pictures_of(self.input(node, "image").map(pictures::invert)),
            "ImageScale" => {
                let (width, height) = (self.integer(node, "width"), self.integer(node, "height"));
                let scaled = |it| pictures::scale(it, width, height);
                pictures_of(self.input(node, "image").map(scaled))
            }
            "ImageScaleToMaxDimension" => {
                let largest = self.integer(node, "largest_size");
                let scaled = |it| pictures::scale_to(it, largest);
                pictures_of(self.input(node, "image").map(scaled))
            }
            "SlowSteps" => self.slow_steps(id, node).await,
            "SaveImage" => self.save(FileKind::Output, node),
            "PreviewImage" => self.save(FileKind::Temp, node),
            "SaveImageWebsocket" => self.send(id, node),
            "ETN_SendImageWebSocket" => self.send_results(node),
            "GetImageSize" => self.size(id, node),
            "PreviewAny" => self.preview_any(node),
            "SaveText" => self.save_text(node),
            "Preview3D" => {
                let file = &node["inputs"]["model_file"];
                shown(json!({ "result": [file, null, null] }))
            }
            "SimBroadcast" => {
                self.shared.say("sim.broadcast", &json!({ "from": self.shared.name() }), None);
                self.shared.send_unknown();
                self.passed(node)
            }
            "SimBlock" => {
                self.block(id);
                self.passed(node)
            }
            "SimExit" => Given::Exit,
            "SimSilence" => {
                sleep(self.seconds(node)).await;
                self.passed(node)
            }
            models::CLASS => {
                let name = node["inputs"]["ckpt_name"].as_str().unwrap_or_default();
                let load = self.shared.server().uses_model(&self.item.id, name);
                sleep(load).await;
                self.passed(node)
            }
            _ => self.lent(id, class),
        }
    }

    async fn slow_steps(&mut self, id: &str, node: &Value) -> Given {
        let steps = self.integer(node, "steps").max(1);
        let pause = self.seconds(node) / steps;
        let shows = node["inputs"]["preview"] == true;
        let picture = self.input(node, "image").and_then(|batch| batch.first()).cloned();
        for step in 1..=steps {
            sleep(pause).await;
            if self.shared.take_interrupt() {
                return Given::Interrupted(self.stopped_at(id));
            }
            let preview = picture.as_ref().filter(|_| shows).map(Picture::preview);
            self.tick(id, step, steps, preview.as_ref());
        }
        if node["inputs"]["fail"] == true {
            return Given::Failed(self.failed_at(id, "asked to fail\n"));
        }
        self.passed(node)
    }

    /// One tick of a progress bar: a preview with metadata comes before the `progress`, a plain one
    /// after it.
    fn tick(&mut self, id: &str, step: u32, steps: u32, preview: Option<&Picture>) {
        let client = self.item.client();
        let with_metadata = self.shared.previews_with_metadata(client);
        let show = |preview: &Picture| self.shared.show(&self.item.id, id, client, preview);
        let data = json!({
            "value": step, "max": steps, "prompt_id": self.item.id, "node": id,
        });
        let state = json!({ "value": step, "max": steps });
        let progress = (state["value"].clone(), state["max"].clone());
        if let Some(at) = self.progress.get_mut(id) {
            (at["value"], at["max"]) = progress;
        }
        self.say_progress_state();
        match preview {
            Some(preview) if with_metadata => {
                show(preview);
                self.shared.say("progress", &data, client);
            }
            Some(preview) => {
                self.shared.say("progress", &data, client);
                show(preview);
            }
            None => self.shared.say("progress", &data, client),
        }
    }

    fn load(&self, id: &str, node: &Value) -> Given {
        let file = node["inputs"]["image"].as_str().unwrap_or_default();
        let bytes = self.shared.server().files.annotated(file).map(|file| file.bytes.clone());
        match bytes.as_deref().and_then(pictures::read) {
            Some(pictures) => done(Made::Pictures(pictures)),
            None => Given::Failed(self.failed_at(id, "cannot identify image file")),
        }
    }

    fn save(&self, kind: FileKind, node: &Value) -> Given {
        let mut texts = vec![("prompt", dumps(&json!(self.item.graph)))];
        if let Some(workflow) = self.item.extra_data.pointer("/extra_pnginfo/workflow") {
            texts.push(("workflow", dumps(workflow)));
        }
        let mut server = self.shared.server();
        let prefix = match kind {
            FileKind::Temp => format!("ComfyUI_temp_{}", server.memory.temp_prefix),
            FileKind::Input | FileKind::Output => {
                node["inputs"]["filename_prefix"].as_str().unwrap_or("ComfyUI").to_owned()
            }
        };
        let mut images = Vec::new();
        for picture in self.input(node, "images").into_iter().flatten() {
            let path = server.files.next_name(kind, &prefix);
            server.files.put(kind, &path, pictures::png(picture, &texts).into());
            images.push(named(&path, kind));
        }
        shown(json!({ "images": images }))
    }

    /// Pictures that exist only on the socket.
    fn send(&self, id: &str, node: &Value) -> Given {
        for picture in self.input(node, "images").into_iter().flatten() {
            let picture = Picture::Png(pictures::png(picture, &[]));
            self.shared.show(&self.item.id, id, self.item.client(), &picture);
        }
        done(Made::Nothing)
    }

    /// Pictures as results, as krita's nodes send them: always as type 1, and never stored.
    fn send_results(&self, node: &Value) -> Given {
        let format = node["inputs"]["format"].as_str().unwrap_or("PNG");
        let mut images = Vec::new();
        for picture in self.input(node, "images").into_iter().flatten() {
            let picture = match format {
                "JPEG" => Picture::preview(picture),
                _ => Picture::Png(pictures::png(picture, &[])),
            };
            self.shared.show_plain(self.item.client(), &picture);
            let kind = format!("image/{}", format.to_lowercase());
            images.push(json!({ "source": "websocket", "content-type": kind, "type": "output" }));
        }
        shown(json!({ "images": images }))
    }

    /// Its text names neither the prompt nor a client, so every socket gets it.
    fn size(&self, id: &str, node: &Value) -> Given {
        let batch = self.input(node, "image").cloned().unwrap_or_default();
        let (width, height) = batch.first().map_or((0, 0), image::RgbImage::dimensions);
        let count = batch.len();
        let text = format!("width: {width}, height: {height}\n batch size: {count}");
        self.shared.send_text(id, &text);
        done(Made::Numbers(vec![width as usize, height as usize, count]))
    }

    fn preview_any(&self, node: &Value) -> Given {
        let slot = node["inputs"]["source"][1].as_u64().and_then(|slot| usize::try_from(slot).ok());
        let text = match self.made_for(node, "source") {
            Some(Made::Numbers(numbers)) => {
                numbers.get(slot.unwrap_or(0)).map(usize::to_string).unwrap_or_default()
            }
            Some(Made::Text(text)) => text.clone(),
            Some(Made::Pictures(_)) => "tensor([[[[0.]]]])".to_owned(),
            Some(Made::Nothing) => "None".to_owned(),
            None => text_of(&node["inputs"]["source"]),
        };
        let shown = Some(json!({ "text": [text] }));
        Given::Done { made: Made::Text(text), shown }
    }

    fn save_text(&self, node: &Value) -> Given {
        let text = match self.made_for(node, "text") {
            Some(Made::Text(text)) => text.clone(),
            Some(_) | None => node["inputs"]["text"].as_str().unwrap_or_default().to_owned(),
        };
        let prefix = node["inputs"]["filename_prefix"].as_str().unwrap_or("ComfyUI");
        let ending = node["inputs"]["format"].as_str().unwrap_or("txt");
        let mut server = self.shared.server();
        let path = server.files.next_name(FileKind::Output, prefix);
        // Without the last underscore that names of pictures have.
        let path = format!("{}.{ending}", path.trim_end_matches("_.png"));
        server.files.put(FileKind::Output, &path, text.clone().into());
        let files = json!([named(&path, FileKind::Output)]);
        let shown = Some(json!({ "text": [text], "files": files }));
        Given::Done { made: Made::Text(text), shown }
    }

    /// A picture that was stored under an id (`PUT /api/etn/image/ID`).
    fn load_cached(&self, id: &str, node: &Value) -> Given {
        let name = node["inputs"]["id"].as_str().unwrap_or_default();
        let bytes = self.shared.server().memory.put_images.get(name).cloned();
        match bytes.as_deref().and_then(pictures::read) {
            Some(pictures) => done(Made::Pictures(pictures)),
            None => {
                let message = format!("Image with ID {name} not found in cache");
                Given::Failed(self.failed_at(id, &message))
            }
        }
    }

    /// All pictures in a folder of the inputs.
    fn load_folder(&self, id: &str, node: &Value) -> Given {
        let folder = node["inputs"]["directory"].as_str().unwrap_or_default();
        let files = self.shared.server().files.in_folder(FileKind::Input, folder);
        let read = files.iter().filter_map(|bytes| pictures::read(bytes));
        let batch: pictures::Batch = read.flatten().collect();
        if batch.is_empty() {
            let message = format!("No files in directory '{folder}'.");
            return Given::Failed(self.failed_at(id, &message));
        }
        done(Made::Pictures(batch))
    }

    fn lent(&self, id: &str, class: &str) -> Given {
        match self.shared.server().lent.get(class) {
            Some(lent) => shown(lent.shown.clone()),
            None => Given::Failed(self.failed_at(id, "unknown node")),
        }
    }

    /// The picture of the input, unchanged.
    fn passed(&self, node: &Value) -> Given {
        pictures_of(self.input(node, "image").cloned())
    }

    fn seconds(&self, node: &Value) -> Duration {
        let seconds = node["inputs"]["seconds"].as_f64().unwrap_or(0.0).clamp(0.0, 3600.0);
        Duration::from_secs_f64(seconds / self.shared.speed())
    }

    /// An error that does not end the prompt (`execution.py:497`).
    fn block(&self, id: &str) {
        let data = json!({
            "prompt_id": self.item.id, "node_id": id, "node_type": "SimBlock",
            "executed": self.executed, "exception_message": "Execution Blocked: asked to block",
            "exception_type": "ExecutionBlocked", "traceback": [], "current_inputs": [],
            "current_outputs": [],
        });
        self.shared.say("execution_error", &data, self.item.client());
    }

    fn integer(&self, node: &Value, name: &str) -> u32 {
        node["inputs"][name].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    }
}

fn done(made: Made) -> Given {
    Given::Done { made, shown: None }
}

fn pictures_of(pictures: Option<pictures::Batch>) -> Given {
    done(pictures.map_or(Made::Nothing, Made::Pictures))
}

fn shown(shown: Value) -> Given {
    Given::Done { made: Made::Nothing, shown: Some(shown) }
}

/// A file in the format of outputs.
fn named(path: &str, kind: FileKind) -> Value {
    let (subfolder, name) = path.rsplit_once('/').unwrap_or(("", path));
    json!({ "filename": name, "subfolder": subfolder, "type": kind.as_str() })
}

/// A value as text.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
