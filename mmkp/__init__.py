"""mmkp: multimodal keypoint detection."""
