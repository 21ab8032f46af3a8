"""The Faster R-CNN of bottom-up attention (Anderson et al., CVPR 2018), whose features this field trains on.

From a picture to its regions: `pixels` puts it on a canvas, `resnet` turns that into a feature map, `proposals` finds
boxes from the feature map and `anchors`, `roi_pool` and `heads` turn each box into a feature vector, and `selection`
chooses the boxes to keep. `faster_rcnn` combines them, one program for each size of canvas; `weights` reads the files
that are in circulation.

Boxes are x1, y1, x2, y2 with the last pixel inside, so a box is x2 - x1 + 1 pixels wide, as in Caffe's detectors.
"""
