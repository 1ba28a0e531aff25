"""mediapipe 0.10.21's face mesh as a peer: see jobs.py. Runs in the environment that setup.py makes, not in mmkp's.

Weights: carried by the package, Apache-2.0 (the model cards of BlazeFace short range and Face Mesh say what they were
trained on).
"""

from __future__ import annotations

import jobs
import numpy as np

# Mesh vertex of each iBUG-68 point, found from the labels that come with the GRID excerpt, which mediapipe made: for
# each point the vertex that lies on it in every frame. With `refine` and without `static`, which is how they were made,
# the vertices lie within 0.0008 of the outer-eye distance of the labels, which is the rounding of their float16. Jaw,
# brows and nose are where the mesh has vertices, not where iBUG's annotators put points; eyes and lips are the same.
MESH_OF_IBUG = [
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lip
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lip
]  # fmt: skip


def make(static: bool = True, refine: bool = True) -> jobs.Detect:
    """A detector of one face.

    Args:
        static: every picture by itself; False follows the face from frame to frame, as in a video.
        refine: the attention mesh, which looks again at eyes and lips.
    """
    from mediapipe.python.solutions.face_mesh import FaceMesh

    mesh = FaceMesh(static_image_mode=static, max_num_faces=1, refine_landmarks=refine)

    def detect(picture: np.ndarray, box_xywh: np.ndarray) -> np.ndarray | None:
        faces = mesh.process(picture).multi_face_landmarks
        if not faces:
            return None
        shares = np.array([(point.x, point.y) for point in faces[0].landmark])[MESH_OF_IBUG]
        return shares * (picture.shape[1], picture.shape[0]) - 0.5  # its 0 is the picture's edge

    return detect


if __name__ == "__main__":
    jobs.serve(make)
