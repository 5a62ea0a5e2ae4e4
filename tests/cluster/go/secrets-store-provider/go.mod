module hushpod.dev/cluster/secrets-store-provider

go 1.25.0

require sigs.k8s.io/secrets-store-csi-driver v1.4.8

require (
	google.golang.org/grpc v1.56.3
)

require (
	github.com/gogo/protobuf v1.3.2 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	golang.org/x/net v0.33.0 // indirect
	golang.org/x/sys v0.28.0 // indirect
	golang.org/x/text v0.21.0 // indirect
	google.golang.org/genproto v0.0.0-20230410155749-daa745c078e1 // indirect
	google.golang.org/protobuf v1.33.0 // indirect
	k8s.io/kubelet v0.26.4
)
