//! ImageService.

use super::convert;
use super::pages::{Pages, pages};
use crate::error::Error;
use crate::shim::{Shim, now_ns};
use base64::Engine;
use hull_cri_api::v1::image_service_server::ImageService;
use hull_cri_api::v1::*;
use hull_image::RegistryAuth;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
pub struct Images {
    /// The shim.
    pub shim: Arc<Shim>,
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let images = list(&self.shim, request.into_inner().filter);
        Ok(Response::new(ListImagesResponse { images }))
    }

    type StreamImagesStream = Pages<StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = list(&self.shim, request.into_inner().filter);
        Ok(Response::new(pages(images, |images| {
            StreamImagesResponse { images }
        })))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let name = name(request.image)?;
        let found = self.shim.images.get(&name);
        let mut info = std::collections::HashMap::new();
        if let Some(image) = found.as_ref().filter(|_| request.verbose) {
            info.insert(
                "info".to_string(),
                serde_json::to_string(image).unwrap_or_default(),
            );
        }
        Ok(Response::new(ImageStatusResponse {
            image: found.as_ref().map(convert::image),
            info,
        }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = name(request.image)?;
        let auth = request.auth.map(credentials).transpose()?.flatten();
        let image = self
            .shim
            .images
            .pull(&name, auth)
            .await
            .map_err(Error::from)?;
        tracing::info!(image = name, id = image.id, "image pulled");
        Ok(Response::new(PullImageResponse {
            image_ref: image.id,
        }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = name(request.into_inner().image)?;
        // CRI removes the image with all its names, whichever one is given.
        if let Some(image) = self.shim.images.get(&name) {
            self.shim
                .images
                .remove(&image.id)
                .await
                .map_err(Error::from)?;
        }
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let images = self.shim.images.clone();
        let usage = tokio::task::spawn_blocking(move || images.usage())
            .await
            .map_err(|_| Error::Task("measuring the image store"))?
            .map_err(Error::io("measuring the image store"))?;
        let filesystem = FilesystemUsage {
            timestamp: now_ns(),
            fs_id: Some(FilesystemIdentifier {
                mountpoint: self.shim.images.root().display().to_string(),
            }),
            used_bytes: Some(UInt64Value { value: usage.bytes }),
            inodes_used: Some(UInt64Value {
                value: usage.inodes,
            }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![filesystem.clone()],
            container_filesystems: vec![filesystem],
        }))
    }
}

fn list(shim: &Shim, filter: Option<ImageFilter>) -> Vec<Image> {
    let wanted = filter.and_then(|filter| filter.image);
    let images = match wanted.filter(|spec| !spec.image.is_empty()) {
        Some(spec) => shim.images.get(&spec.image).into_iter().collect(),
        None => shim.images.list(),
    };
    images.iter().map(convert::image).collect()
}

fn name(spec: Option<ImageSpec>) -> Result<String, Error> {
    spec.map(|spec| spec.image)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Error::InvalidArgument("the request names no image".to_string()))
}

/// CRI credentials: user and password, the two in base64 (`auth`), or a token.
fn credentials(auth: AuthConfig) -> Result<Option<RegistryAuth>, Error> {
    if !auth.registry_token.is_empty() {
        return Ok(Some(RegistryAuth::RegistryToken(auth.registry_token)));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(RegistryAuth::IdentityToken(auth.identity_token)));
    }
    if !auth.username.is_empty() {
        return Ok(Some(RegistryAuth::Basic {
            username: auth.username,
            password: auth.password,
        }));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(auth.auth.trim())
        .ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = text.as_deref().and_then(|text| text.split_once(':'));
    let (username, password) = pair.ok_or_else(|| {
        Error::InvalidArgument("auth is not the base64 of user:password".to_string())
    })?;
    Ok(Some(RegistryAuth::Basic {
        username: username.to_string(),
        password: password.trim_end_matches('\0').to_string(),
    }))
}
