//! ImageService.

use hull_cri_api::v1::image_service_server::ImageService;
use hull_cri_api::v1::*;
use tonic::{Request, Response, Status};

use super::FakeCri;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ImageService for FakeCri {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let images = self.state.lock().images.values().cloned().collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Answer<ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let image = self.state.lock().images.get(&name).cloned();
        Ok(Response::new(ImageStatusResponse {
            image,
            ..Default::default()
        }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.unwrap_or_default().image;
        let mut state = self.state.lock();
        state.calls.push(format!("PullImage {name}"));
        if let Some(error) = state.bad_images.get(&name) {
            return Err(Status::not_found(error.clone()));
        }
        if let Some((username, password)) = state.private_images.get(&name) {
            let auth = request.auth.unwrap_or_default();
            if auth.username != *username || auth.password != *password {
                return Err(Status::unauthenticated("credentials refused"));
            }
        }
        let id = format!("sha256:{name}");
        let image = Image {
            id: id.clone(),
            repo_tags: vec![name.clone()],
            size: 1000,
            ..Default::default()
        };
        state.images.insert(name, image);
        Ok(Response::new(PullImageResponse { image_ref: id }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Answer<RemoveImageResponse> {
        let id = request.into_inner().image.unwrap_or_default().image;
        let mut state = self.state.lock();
        state.calls.push(format!("RemoveImage {id}"));
        state.images.retain(|_, image| image.id != id);
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![FilesystemUsage {
                fs_id: Some(FilesystemIdentifier {
                    mountpoint: "/".into(),
                }),
                ..Default::default()
            }],
            ..Default::default()
        }))
    }

    type StreamImagesStream =
        std::pin::Pin<Box<dyn futures::Stream<Item = Result<StreamImagesResponse, Status>> + Send>>;

    async fn stream_images(
        &self,
        _: Request<StreamImagesRequest>,
    ) -> Answer<Self::StreamImagesStream> {
        Err(Status::unimplemented("StreamImages"))
    }
}
