//! What the backends say: ComfyUI's words, at a fixed size where a row asks for one.

use crate::ws::{BINARY, TEXT, from_server};

/// A small answer of 300 bytes or so, and the one in which a gateway looks for the version.
pub const SYSTEM_STATS: &str = r#"{"system": {"os": "posix", "ram_total": 67430768640, "ram_free": 51539607552, "comfyui_version": "0.8.0", "python_version": "3.12.3", "pytorch_version": "2.9.0", "embedded_python": false, "argv": ["main.py"]}, "devices": [{"name": "cuda:0", "type": "cuda", "index": 0, "vram_total": 25757220864, "vram_free": 25000000000}]}"#;
pub const FEATURES: &str = r#"{"supports_preview_metadata": true, "max_upload_size": 104857600}"#;
pub const QUEUE_LENGTH: &str = r#"{"exec_info": {"queue_remaining": 0}}"#;

/// The first word on a socket.
pub fn hello(client: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"type": "status", "data": {{"status": {{"exec_info": {{"queue_remaining": 0}}}}, "sid": "{client}"}}}}"#
    );
    from_server(TEXT, text.as_bytes())
}

pub fn features() -> Vec<u8> {
    let text = format!(r#"{{"type": "feature_flags", "data": {FEATURES}}}"#);
    from_server(TEXT, text.as_bytes())
}

/// An event of a running prompt: up to 1000 bytes of text, else a preview with metadata.
pub fn event(prompt: &str, size: usize) -> Vec<u8> {
    if size <= 1000 {
        let text = format!(
            r#"{{"type": "progress_state", "data": {{"prompt_id": "{prompt}", "nodes": {{"3": {{"value": 5.0, "max": 20.0, "state": "running", "node_id": "3", "prompt_id": "{prompt}", "display_node_id": "3", "parent_node_id": null, "real_node_id": "3"}}}}}}}}"#
        );
        return from_server(TEXT, format!("{text:size$}").as_bytes());
    }
    let metadata = format!(
        r#"{{"node_id": "3", "prompt_id": "{prompt}", "display_node_id": "3", "parent_node_id": null, "real_node_id": "3", "image_type": "image/jpeg"}}"#
    );
    let mut frame = 4_u32.to_be_bytes().to_vec();
    frame.extend_from_slice(&(metadata.len() as u32).to_be_bytes());
    frame.extend_from_slice(metadata.as_bytes());
    frame.resize(size, 0xd8);
    from_server(BINARY, &frame)
}

/// All events of one small prompt, from its start to its last word.
pub fn life(prompt: &str) -> Vec<u8> {
    let event = |kind: &str, data: &str| {
        let text = format!(r#"{{"type": "{kind}", "data": {{{data}"prompt_id": "{prompt}"}}}}"#);
        from_server(TEXT, text.as_bytes())
    };
    let time = r#""timestamp": 1767225600000, "#;
    let mut frames = event("execution_start", time);
    frames.extend(event("execution_cached", r#""nodes": [], "timestamp": 1767225600000, "#));
    frames.extend(event("executing", r#""node": "3", "display_node": "3", "#));
    for value in 1..=4 {
        let data = format!(r#""value": {value}, "max": 4, "node": "3", "#);
        frames.extend(event("progress", &data));
    }
    let output = format!(
        r#""node": "9", "display_node": "9", "output": {{"images": [{}]}}, "#,
        image(prompt)
    );
    frames.extend(event("executed", &output));
    frames.extend(event("execution_success", time));
    frames.extend(event("executing", r#""node": null, "#));
    frames
}

/// The answer of `GET /history/{prompt}` once it has ended.
pub fn history(prompt: &str) -> String {
    format!(
        r#"{{"{prompt}": {{"prompt": [1, "{prompt}", {{}}, {{}}, ["9"]], "outputs": {{"9": {{"images": [{}]}}}}, "status": {{"status_str": "success", "completed": true, "messages": [["execution_start", {{"prompt_id": "{prompt}", "timestamp": 1767225600000}}], ["execution_success", {{"prompt_id": "{prompt}", "timestamp": 1767225600000}}]]}}, "meta": {{}}}}}}"#,
        image(prompt)
    )
}

fn image(prompt: &str) -> String {
    format!(r#"{{"filename": "{prompt}_00001_.png", "subfolder": "", "type": "output"}}"#)
}

/// The answer of `GET /queue` while prompts run.
pub fn queue(running: &[String]) -> String {
    let items: Vec<String> =
        running.iter().map(|prompt| format!(r#"[1, "{prompt}", {{}}, {{}}, ["9"]]"#)).collect();
    format!(r#"{{"queue_running": [{}], "queue_pending": []}}"#, items.join(", "))
}

pub fn taken(prompt: &str) -> String {
    format!(r#"{{"prompt_id": "{prompt}", "number": 1, "node_errors": {{}}}}"#)
}

/// A submission of the stock workflow, about 1.3 KB.
pub fn submission(client: &str, prompt: &str) -> String {
    format!(
        r#"{{"client_id": "{client}", "prompt_id": "{prompt}", "prompt": {{"3": {{"inputs": {{"seed": 156680208700286, "steps": 4, "cfg": 8, "sampler_name": "euler", "scheduler": "normal", "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}}, "class_type": "KSampler", "_meta": {{"title": "KSampler"}}}}, "4": {{"inputs": {{"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"}}, "class_type": "CheckpointLoaderSimple"}}, "5": {{"inputs": {{"width": 512, "height": 512, "batch_size": 1}}, "class_type": "EmptyLatentImage"}}, "6": {{"inputs": {{"text": "beautiful scenery nature glass bottle landscape, purple galaxy bottle,", "clip": ["4", 1]}}, "class_type": "CLIPTextEncode"}}, "7": {{"inputs": {{"text": "text, watermark", "clip": ["4", 1]}}, "class_type": "CLIPTextEncode"}}, "8": {{"inputs": {{"samples": ["3", 0], "vae": ["4", 2]}}, "class_type": "VAEDecode"}}, "9": {{"inputs": {{"filename_prefix": "ComfyUI", "images": ["8", 0]}}, "class_type": "SaveImage"}}}}}}"#
    )
}

/// The first value of a key that is a string.
pub fn field<'a>(body: &'a str, key: &str) -> Option<&'a str> {
    let rest = body.split_once(&format!("\"{key}\""))?.1;
    rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()
}
