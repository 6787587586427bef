//! Pictures that can be told apart, uploaded and run through graphs, for tests of files.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, World, send_bytes};

/// A picture of one colour, as a file.
pub(crate) fn png(color: [u8; 3]) -> Vec<u8> {
    let picture = image::RgbImage::from_pixel(8, 8, image::Rgb(color));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// The colour of a picture.
pub(crate) fn color(bytes: &[u8]) -> [u8; 3] {
    image::load_from_memory(bytes).expect("it is a picture").to_rgb8().get_pixel(0, 0).0
}

pub(crate) fn inverse(color: [u8; 3]) -> [u8; 3] {
    color.map(|part| 255 - part)
}

pub(crate) const RED: [u8; 3] = [255, 0, 0];
pub(crate) const BLUE: [u8; 3] = [0, 0, 255];

/// A form with a picture and fields.
pub(crate) fn form(filename: &str, picture: &[u8], fields: &[(&str, &str)]) -> Bytes {
    let mut body = Vec::new();
    body.extend_from_slice(
        format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{filename}\"\r\n\
             Content-Type: image/png\r\n\r\n"
        )
        .as_bytes(),
    );
    body.extend_from_slice(picture);
    for (name, value) in fields {
        let field =
            format!("\r\n--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}");
        body.extend_from_slice(field.as_bytes());
    }
    body.extend_from_slice(b"\r\n--xyz--\r\n");
    body.into()
}

pub(crate) async fn post_form(
    world: &World,
    path: &str,
    client: Option<&str>,
    body: Bytes,
) -> Answer {
    let mut headers = vec![("content-type", "multipart/form-data; boundary=xyz")];
    headers.extend(client.map(|client| ("comfy-client-id", client)));
    send_bytes(world.front, Method::POST, path, &headers, body).await
}

pub(crate) async fn upload(
    world: &World,
    client: Option<&str>,
    filename: &str,
    picture: &[u8],
) -> Answer {
    post_form(world, "/upload/image", client, form(filename, picture, &[])).await
}

/// The value that the page puts into a graph for the answer to an upload.
pub(crate) fn value(answer: &Answer) -> String {
    let json = answer.json();
    let (name, subfolder) = (json["name"].as_str().unwrap(), json["subfolder"].as_str().unwrap());
    if subfolder.is_empty() { name.to_owned() } else { format!("{subfolder}/{name}") }
}

/// A graph that inverts a picture and saves it.
pub(crate) fn invert(image: &str) -> Value {
    json!({
        "1": { "class_type": "LoadImage", "inputs": { "image": image } },
        "2": { "class_type": "ImageInvert", "inputs": { "image": ["1", 0] } },
        "3": { "class_type": "SaveImage", "inputs": { "images": ["2", 0],
            "filename_prefix": "ComfyUI" } },
    })
}

/// Runs a graph to its end: the answer, and the files that it told of.
pub(crate) async fn run(world: &World, client: &str, graph: &Value) -> (Answer, Vec<Value>) {
    let mut socket = world.socket(client).await;
    let answer = world.submit(client, graph).await;
    let prompt = answer.prompt_id();
    let mut images = Vec::new();
    loop {
        let event = socket.event().await;
        if event["type"] == "executed" && event["data"]["prompt_id"] == *prompt {
            images.extend(event["data"]["output"]["images"].as_array().unwrap().iter().cloned());
        }
        let is_over = event["type"] == "executing" && event["data"]["node"].is_null();
        if is_over && event["data"]["prompt_id"] == *prompt {
            return (answer, images);
        }
    }
}

/// Looks at a file as the page does: by the three parts of its name.
pub(crate) async fn view(world: &World, image: &Value, client: Option<&str>) -> Answer {
    let part = |key: &str| {
        let text = image[key].as_str().unwrap_or_default();
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let (name, subfolder, kind) = (part("filename"), part("subfolder"), part("type"));
    let client = client.map_or_else(String::new, |client| format!("&clientId={client}"));
    let path = format!("/api/view?filename={name}&subfolder={subfolder}&type={kind}{client}");
    world.get(&path).await
}
