//! ImageService: images on the node.

use hull_cri_api::v1 as cri;

use super::client::{Cri, CriError};

impl Cri {
    /// ImageStatus; `None` when the image is not on the node.
    pub async fn image_status(&self, image: &str) -> Result<Option<cri::Image>, CriError> {
        let request = cri::ImageStatusRequest {
            image: Some(image_spec(image)),
            verbose: false,
        };
        let mut client = self.image.clone();
        let timeout = self.timings.runtime_timeout;
        match self
            .call("ImageStatus", timeout, client.image_status(request))
            .await
        {
            Ok(response) => Ok(response.image),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// PullImage; the reference to create containers with.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = cri::PullImageRequest {
            image: Some(image_spec(image)),
            auth,
            sandbox_config: Some(sandbox_config),
        };
        let mut client = self.image.clone();
        let timeout = self.timings.pull_timeout;
        Ok(self
            .call("PullImage", timeout, client.pull_image(request))
            .await?
            .image_ref)
    }

    /// ListImages, for the node's status.
    pub async fn list_images(&self) -> Result<Vec<cri::Image>, CriError> {
        let mut client = self.image.clone();
        let timeout = self.timings.runtime_timeout;
        let request = cri::ListImagesRequest { filter: None };
        Ok(self
            .call("ListImages", timeout, client.list_images(request))
            .await?
            .images)
    }

    /// RemoveImage; one that is gone counts as removed.
    pub async fn remove_image(&self, id: &str) -> Result<(), CriError> {
        let request = cri::RemoveImageRequest {
            image: Some(image_spec(id)),
        };
        let mut client = self.image.clone();
        let timeout = self.timings.runtime_timeout;
        let removed = self.call("RemoveImage", timeout, client.remove_image(request));
        match removed.await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// ImageFsInfo: where images are kept, and how much they use.
    pub async fn image_filesystem(&self) -> Result<Option<cri::FilesystemUsage>, CriError> {
        let mut client = self.image.clone();
        let timeout = self.timings.runtime_timeout;
        let request = cri::ImageFsInfoRequest {};
        let response = self
            .call("ImageFsInfo", timeout, client.image_fs_info(request))
            .await?;
        Ok(response.image_filesystems.into_iter().next())
    }
}

/// An ImageSpec for an image as the user wrote it.
pub fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: image.into(),
        user_specified_image: image.into(),
        ..Default::default()
    }
}
